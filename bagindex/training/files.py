"""What a training writes: the weights, the log, and the state from which it is resumed; each replaced in one step."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from bagindex import output
from bagindex.errors import TrainingError
from bagindex.store import fsync_folder, replace_file
from bagindex_schemas.training import EpochRecord


@dataclass(frozen=True)
class TrainingState:
    """A training between two epochs.

    `settings` is what must be the same for the training to go on; `tensors` what model, optimizer and gradient scaler
    need to.
    """

    settings: Mapping[str, Any]
    epochs: tuple[EpochRecord, ...]
    tensors: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingFiles:
    """The files of a training whose weights are to be in `weights`, a `.safetensors` file."""

    weights: Path

    @property
    def log(self) -> Path:
        """A CSV file, a row for each epoch."""
        return self.weights.with_suffix(".csv")

    @property
    def state(self) -> Path:
        """Is there from the first epoch's end until the training is finished."""
        return self.weights.with_suffix(".training")

    def write_weights(self, data: bytes) -> None:
        """Put new weights in place of the old ones."""
        _write(self.weights, data)

    def write_log(self, epochs: Sequence[EpochRecord]) -> None:
        """Write the log anew."""
        rows = [epoch.model_dump() for epoch in epochs]
        _write(self.log, output.to_csv(list(EpochRecord.model_fields), rows).encode())

    def write_state(self, state: TrainingState) -> None:
        """Put a new state in place of the old one."""
        epochs = [epoch.model_dump() for epoch in state.epochs]
        data = io.BytesIO()
        torch.save({"settings": json.dumps(state.settings), "epochs": json.dumps(epochs), **state.tensors}, data)
        _write(self.state, data.getvalue())

    def read_state(self) -> TrainingState | None:
        """The state where a training has been begun and is not finished.

        Raises:
            TrainingError: the file cannot be read.
        """
        if not self.state.exists():
            return None
        try:
            loaded = torch.load(self.state, map_location="cpu", weights_only=True)
            settings, epochs = json.loads(loaded.pop("settings")), json.loads(loaded.pop("epochs"))
            return TrainingState(settings, tuple(EpochRecord.model_validate(epoch) for epoch in epochs), loaded)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, ValidationError):
            raise TrainingError(f"{self.state} is damaged: begin anew with --restart") from None

    def remove_state(self) -> None:
        """The training is finished, or begins anew."""
        self.state.unlink(missing_ok=True)
        fsync_folder(self.state.parent)


def _write(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}; what was there is as it was") from None
