"""What the shell is offered at the tab key: names of indexes, classes, models and experiments.

It must be quick, and must not fail: an index that is not there, or cannot be read, has nothing to offer. Only an
index's own record is read, so that neither DuckDB nor torch is imported; of one in an object store nothing is offered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec

import typer

from bagindex import Index, registry

_Parameters = ParamSpec("_Parameters")


def _never_fails(offer: Callable[_Parameters, Iterable[str]]) -> Callable[_Parameters, list[str]]:
    @wraps(offer)
    def offered(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> list[str]:
        try:
            return [_escaped(each) for each in offer(*args, **kwargs)]
        except Exception:  # whatever it is, it would stand in the middle of the line that is typed
            return []

    return offered


@_never_fails
def indexes(incomplete: str) -> Iterable[str]:
    """The indexes that have a name."""
    return _beginning(incomplete, Index.names())


@_never_fails
def classes(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The classes of the index that is meant."""
    opened = _index(ctx)
    return () if opened is None else _beginning(incomplete, (each.name for each in opened.classes))


@_never_fails
def models(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The models of the index that is meant."""
    opened = _index(ctx)
    return () if opened is None else _beginning(incomplete, opened.models)


@_never_fails
def experiments(incomplete: str) -> Iterable[str]:
    """The experiments, and `all`."""
    return _beginning(incomplete, [*(each.name for each in Index.experiments()), "all"])


@_never_fails
def bagnets(incomplete: str) -> Iterable[str]:
    """The BagNets that have a name."""
    return _beginning(incomplete, registry.ARCHITECTURES)


@_never_fails
def networks(incomplete: str) -> Iterable[str]:
    """What weights are published of."""
    return _beginning(incomplete, registry.published())


def _index(ctx: typer.Context) -> Index | None:
    which = ctx.params.get("index") or ctx.params.get("which") or os.environ.get("BAGINDEX_INDEX") or None
    return None if which is not None and "://" in which else Index.open(which)


def _beginning(incomplete: str, names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if name.startswith(incomplete))


def _escaped(name: str) -> str:
    # bash puts it into the line as it is; the other shells quote it themselves.
    bash = os.environ.get("_BAGINDEX_COMPLETE") == "complete_bash"
    return re.sub(r"([^\w.,:/@%+=-])", r"\\\1", name) if bash else name
