"""Options that take one of a few words."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from bagindex.errors import SettingsError

_Choice = TypeVar("_Choice", bound=StrEnum)


def choice(kind: type[_Choice], value: str, option: str) -> _Choice:
    """One of the values that an option takes.

    Raises:
        SettingsError: it is none of them.
    """
    try:
        return kind(value)
    except ValueError:
        raise SettingsError(f"{option} is one of {', '.join(kind)}, not {value!r}") from None
