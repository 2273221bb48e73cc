"""The weights of models of one's own: the state dict of their network, in a file or an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from bagindex.errors import SettingsError, WeightsError
from bagindex.models.finding import Found, find_again
from bagindex.models.from_timm import Headless
from bagindex.models.interface import PatchModel
from bagindex.store import IndexDirectory
from bagindex.weights import check_state, named_classes, read_state
from bagindex_schemas.records import ModelRecord, Plugin


def put(model: PatchModel, state: Mapping[str, Tensor]) -> None:
    """Give a model's network the weights of a state dict, in float32, and make it ready for inference. Its linear layer
    may have other classes then.

    Raises:
        WeightsError: a tensor is missing, has no place or the wrong shape, or is not finite.
    """
    linear, found = model.linear, state.get("fc.weight")
    if found is not None and found.ndim == 2 and found.shape[0] and found.shape[0] != linear.out_features:
        model.network.fc = nn.Linear(linear.in_features, found.shape[0])
    check_state(model.network.state_dict(), state, model.name, model.linear.out_features)
    model.network.load_state_dict(dict(state), strict=False)  # counters may be missing, which inference does not use
    model.network.float().eval()


def state_of(model: PatchModel) -> dict[str, Tensor]:
    """The weights of a model, each tensor its own, in float32 where they are floating-point numbers."""
    state = {key: value.detach().cpu().clone() for key, value in model.network.state_dict().items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def stored_model(directory: IndexDirectory, record: ModelRecord) -> tuple[PatchModel, Found]:
    """A model of an index that is no BagNet, with the weights that the index keeps, and what made it.

    Raises:
        SettingsError: what made it is not known here, or makes a model of other patches now.
        WeightsError: the weights are not those of what is made.
    """
    plugin = record.plugin or Plugin(asked=record.architecture)
    found = find_again(record.name, plugin)
    model = found.make(bare=True)
    grid = record.grid
    if (model.receptive_field, model.stride, model.offset) != (grid.receptive_field, grid.stride, grid.offset):
        raise SettingsError(
            f"{found.plugin} makes a model of other patches than {plugin} did when the index was built: bring that back"
        )
    put(model, read_state(directory.weights_path(record))[0])
    return model, found


def with_weights(model: PatchModel, file: Path) -> PatchModel:
    """A model with the weights of a file instead of its own, and the classes that the file names.

    Raises:
        WeightsError: it cannot be read, or holds other weights.
    """
    count = model.linear.out_features
    try:
        state, metadata = read_state(file)
        put(model, model.network.renamed(state) if isinstance(model.network, Headless) else state)
    except WeightsError as error:
        raise WeightsError(f"{file.name}: {error}") from None
    named = named_classes(metadata, model.linear.out_features, file.name)
    if named is not None:
        return replace(model, classes=[each.name for each in named])
    return model if model.linear.out_features == count else replace(model, classes=None)
