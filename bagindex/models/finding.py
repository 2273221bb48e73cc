"""Where models of one's own come from: Python, installed packages (entry points `bagindex.models`), and timm.

An index says by which name its model was found, and its own weights are put into what is found by it. An index may come
from a stranger: by what it says, only what is registered or installed for bagindex is looked for, and no module of
whatever name is imported.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

from bagindex.errors import BagindexError, SettingsError
from bagindex.importing import failure, load
from bagindex.models.interface import PatchModel
from bagindex.registry import ARCHITECTURES
from bagindex.text import did_you_mean, first_line, near
from bagindex_schemas.records import MODEL_NAME, Plugin

GROUP = "bagindex.models"
"""Entry points of installed packages: functions without arguments that give a `PatchModel`."""
SETTING = "BAGINDEX_MODELS"
TIMM = "timm:"
Factory = Callable[[], PatchModel]
_FACTORY = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
_registered: dict[str, Factory] = {}


@dataclass(frozen=True)
class Found:
    """A model of one's own: what an index will say of it, and what makes it, with its weights and (`bare`) where other
    weights are to take their place.
    """

    plugin: Plugin
    factory: Factory
    bare: Factory

    def make(self, bare: bool = False) -> PatchModel:
        """The model, with the weights that it brings, unless other weights are to take their place.

        Raises:
            SettingsError: what should make it fails, or makes something else.
        """
        try:
            made = self.bare() if bare else self.factory()
        except BagindexError:
            raise
        except Exception as error:  # a package's own code raises whatever it likes
            raise SettingsError(
                f"{self.plugin.asked} fails to make its model: {type(error).__name__}: {first_line(error)}"
            ) from None
        if not isinstance(made, PatchModel):
            raise SettingsError(f"{self.plugin.asked} should make a bagindex.PatchModel, not {type(made).__name__}")
        return made


def register_model(name: str, model: PatchModel | Factory) -> None:
    """Let `model=name` mean a model of one's own, in this process.

    Args:
        name: small letters, digits, - and _; no BagNet's.
        model: the model, or a function that makes it, which other processes can import.

    Raises:
        SettingsError: it cannot be called so.
    """
    if not re.fullmatch(MODEL_NAME, name) or name in ARCHITECTURES:
        raise SettingsError(
            f"a model of one's own cannot be registered as {name!r}: use small letters, digits, - and _, and no "
            "BagNet's name"
        )
    _registered[name] = partial(_copied, model) if isinstance(model, PatchModel) else model


def is_own(asked: str) -> bool:
    """Whether a name is that of a model of one's own, as far as can be told without looking for it elsewhere."""
    known = asked in _registered or any(each.name == asked for each in _installed())
    return known or asked.startswith(TIMM) or re.fullmatch(_FACTORY, asked) is not None


def find(asked: str) -> Found:
    """What a person means by a model's name that is no BagNet's.

    Args:
        asked: a registered name, an entry point's name, `package.module:function`, or `timm:NAME`.

    Raises:
        SettingsError: there is none such. The text says what there is.
    """
    if found := _known(asked):
        return found
    if re.fullmatch(_FACTORY, asked):
        return _import(asked, here=True)
    names = [*ARCHITECTURES, *sorted({*_registered, *(each.name for each in _installed())})]
    hint = did_you_mean(near(asked, names)) or (
        f"choose from {', '.join(names)}; package.module:function and timm:NAME are models of other packages"
    )
    raise SettingsError(f"there is no model {asked!r}: {hint}")


def find_again(name: str, plugin: Plugin) -> Found:
    """What made a model of an index.

    Args:
        name: the model's.
        plugin: as the index says it.

    Raises:
        SettingsError: it is not installed, or not known to bagindex here. The text says how it becomes so.
    """
    if found := _known(plugin.asked):
        return found
    if re.fullmatch(_FACTORY, plugin.asked):
        if plugin.asked in os.environ.get(SETTING, "").replace(",", " ").split():
            # The setting may be of another day, and the current folder the index's, which is somebody else's.
            return _import(plugin.asked, here=False)
        how = f"set {SETTING}={plugin.asked} if you trust it"
    elif plugin.package is None:
        how = f"call bagindex.register_model({plugin.asked!r}, …) first"
    else:
        how = f"install {plugin.package}" + (f" {plugin.version}" if plugin.version else "")
    raise SettingsError(
        f"{name} must be run for this, and is made by {plugin.asked}, which is not known here: {how}; what the index "
        "has stored needs nothing of it"
    )


def _known(asked: str) -> Found | None:
    """What is registered or installed for bagindex by a name."""
    if asked in _registered:
        return _found(Plugin(asked=asked), _registered[asked])
    if asked.startswith(TIMM):
        from bagindex.models.from_timm import make

        name, plugin = asked[len(TIMM) :], Plugin(asked=asked, package="timm", version=_version("timm"))
        return Found(plugin, partial(make, name), partial(make, name, pretrained=False))
    for each in _installed():
        if each.name == asked:
            package = None if each.dist is None else each.dist.name
            plugin = Plugin(asked=asked, package=package, version=None if each.dist is None else each.dist.version)
            return _found(plugin, _loaded(asked, each.load))
    return None


def _found(plugin: Plugin, factory: Factory) -> Found:
    return Found(plugin, factory, factory)


def _installed() -> list[EntryPoint]:
    return list(entry_points(group=GROUP))


def _import(asked: str, here: bool) -> Found:
    top = re.split("[.:]", asked)[0]
    plugin = Plugin(asked=asked, package=top, version=_version(top))
    return _found(plugin, _loaded(asked, lambda: load(asked, here=here)))


def _loaded(asked: str, load: Callable[[], object]) -> Factory:
    try:
        found = load()
    except Exception as error:  # whatever a module does when it is imported
        raise SettingsError(f"{asked} cannot be loaded: {failure(asked, error)}") from None
    if isinstance(found, PatchModel):
        return partial(_copied, found)
    if not callable(found):
        raise SettingsError(f"{asked} should be a function that makes a bagindex.PatchModel")
    return found  # what it gives is looked at when it is called


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _copied(model: PatchModel) -> PatchModel:
    """Its own, whose weights may be exchanged."""
    return copy.deepcopy(model)
