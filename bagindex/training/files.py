"""What a training writes: the weights, the log, and the state from which it is resumed; each replaced in one step."""

from __future__ import annotations

import csv
import hashlib
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
from bagindex.durable import fsync_folder, replace_file
from bagindex.errors import SettingsError, TrainingError
from bagindex_schemas.training import EpochRecord

_DIGEST = 32


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

    def logged(self) -> int | None:
        """How many epochs the log has; None where there is none.

        Raises:
            SettingsError: the file in the log's place is something else.
        """
        try:
            with self.log.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                if list(reader.fieldnames or ()) == list(EpochRecord.model_fields):
                    return sum(1 for _ in reader)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            pass
        raise SettingsError(f"{self.log}, where the log would go, is something else: move it, or give another -o")

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
        # torch does not notice a flipped bit.
        _write(self.state, hashlib.sha256(data.getbuffer()).digest() + data.getvalue())

    def read_state(self) -> TrainingState | None:
        """The state where a training has been begun and is not finished.

        Raises:
            TrainingError: the file cannot be read.
        """
        if not self.state.exists():
            return None
        try:
            data = self.state.read_bytes()
            if hashlib.sha256(memoryview(data)[_DIGEST:]).digest() != data[:_DIGEST]:
                raise ValueError("another SHA-256")
            loaded = torch.load(io.BytesIO(data[_DIGEST:]), map_location="cpu", weights_only=True)
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
