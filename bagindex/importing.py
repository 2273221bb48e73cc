"""Functions that a person names by `package.module:function`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from bagindex.text import first_line


def load(asked: str, *, here: bool) -> Any:
    """What is named so; what the module raises when it is imported is passed on.

    Args:
        asked: the name; the function may be an attribute of something else in the module.
        here: whether the current folder is looked in first, as `python -m` does; it is where a person's own file is
            most likely to be, and another's files may be.
    """
    module, _, attribute = asked.partition(":")
    if here:
        sys.path.insert(0, "")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    finally:
        if here:
            sys.path.remove("")
    return found


def failure(asked: str, error: Exception) -> str:
    """Why something that is named so could not be loaded, and what to do where its module was not found."""
    module = asked.partition(":")[0]
    lost = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
    how = "; set PYTHONPATH to the folder that it is in" if lost else ""
    return f"{type(error).__name__}: {first_line(error)}{how}"
