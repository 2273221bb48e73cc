"""What an experiment's models are compared with: networks that run here, and predictions that were brought."""

from __future__ import annotations

from collections.abc import Sequence

from bagindex.errors import QueryError
from bagindex.experiments.brought import read_predictions
from bagindex.experiments.experiment import Setting
from bagindex.experiments.networks import (
    Network,
    NetworkOptions,
    network_name,
    open_network,
    open_networks,
    stored_network,
)
from bagindex.experiments.predicted import Predicted, predict


def networks(setting: Setting) -> tuple[Network, ...]:
    """The networks to compare with, opened; none where none was asked for.

    Raises:
        SettingsError, WeightsError, LabelError: see `bagindex.experiments.networks.open_network`.
        QueryError: one is called like a model of the index.
    """
    for asked in setting.against:
        _check_name(asked, setting)
    return open_networks(setting.against, options(setting))


def _check_name(asked: str, setting: Setting) -> None:
    if (name := network_name(asked)) in setting.catalog.models:
        raise QueryError(
            f"a model of the index is called {name}: call what it is compared with otherwise, as in other=FILE"
        )


def network(asked: str, setting: Setting) -> Network:
    """One network by what it is asked for by, opened; as for `networks`."""
    _check_name(asked, setting)
    return open_network(asked, options(setting))


def options(setting: Setting) -> NetworkOptions:
    """How an experiment's networks are opened."""
    return NetworkOptions(
        setting.classes,
        setting.class_list,
        lambda name, done, total: setting.progress(f"fetching the weights of {name} (bytes)", done, total or done),
        setting.note,
    )


def needed_networks(setting: Setting, what: str) -> tuple[Network, ...]:
    """The networks to compare with, one at least.

    Raises:
        QueryError: none was asked for.
        SettingsError, WeightsError, LabelError: as for `networks`.
    """
    if not setting.against:
        raise QueryError(f"{what} needs a network to compare with: give --against vgg16, or another, or NAME=FILE")
    return networks(setting)


def own_networks(setting: Setting) -> tuple[Network, ...]:
    """The chosen BagNets of the index, from the weights that it keeps.

    Raises:
        WeightsError: they cannot be read.
    """
    directory, plan = setting.index._directory, setting.catalog.manifest.plan
    return tuple(stored_network(directory, record, plan) for record in setting.records)


def predictions(setting: Setting, opened: Sequence[Network] | None = None) -> tuple[Predicted, ...]:
    """What the networks to compare with predict for the images that count, and the predictions that were brought.

    Args:
        setting: the experiment's.
        opened: the networks, where they are opened already.

    Raises:
        QueryError: there are neither networks nor predictions to compare with, or two of one name.
        BagindexError: see `networks`, `bagindex.experiments.predicted.predict` and `read_predictions`.
    """
    if not setting.against and not setting.predictions:
        raise QueryError(
            "there is nothing to compare with: give --against vgg16, or another network, or --predictions FILE"
        )
    brought = [read_predictions(path, setting) for path in setting.predictions]
    found = [
        *(of_network(setting, each) for each in (networks(setting) if opened is None else opened)),
        *brought,
    ]
    names = [each.name for each in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise QueryError(f"two predictions are called {twice.pop()!r}: give a file of predictions another name")
    return tuple(found)


def of_network(setting: Setting, network: Network) -> Predicted:
    """What a network predicts for the images that count; it runs once for all experiments with one folder."""
    return predict(
        network,
        setting.catalog.manifest.plan,
        setting.image_ids,
        setting.pixels,
        setting.folder,
        device=setting.device,
        progress=lambda done, total: setting.progress(f"{network.name}: predicting images", done, total),
    )
