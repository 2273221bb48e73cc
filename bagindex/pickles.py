"""A look into a torch checkpoint before torch reads it: whether it is made of what a state dict is made of.

torch's restricted unpickler runs no code, but it unpacks whatever a few bytes claim, and makes objects of any size that
they ask for. Neither is needed to read tensors.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_ALLOWED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch\.nn\.parameter Parameter"
    r"|torch (\w+Storage|Size|device|bool|bfloat16|(float|u?int|complex)\d+)|torch\.storage (Untyped|Typed)Storage"
)
_OTHER_LOOKUPS = frozenset({"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
_HARMLESS = frozenset({"builtins bytearray", "builtins set", "builtins complex", "collections Counter"})
"""What torch would let pass, and runs no code, but is in no state dict."""
_LARGEST_PICKLE = 2**28
"""Bytes of names and shapes: those of a BagNet take 50,000."""
_LEGACY_PICKLES = 5
"""A checkpoint that is no archive is so many pickles (a magic number, a version, the machine, the state, the storages'
names), then the tensors' bytes."""


class CodeError(Exception):
    """The checkpoint holds more than tensors."""


def check_pickle(path: Path) -> None:
    """See whether loading a checkpoint makes tensors, dictionaries and plain values only, no larger than the file.

    Raises:
        CodeError: it would make other objects, by code of whatever module.
        ValueError: it is no checkpoint, or one that torch has not written.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                _check_members(archive, path.stat().st_size)
                names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                for name in names:
                    with archive.open(name) as member:
                        _check_globals(member)
        else:
            file.seek(0)
            for _ in range(_LEGACY_PICKLES):
                _check_globals(file)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """torch compresses nothing: an archive that unpacks to more than itself is a bomb."""
    members = archive.infolist()
    stored = all(each.compress_type == zipfile.ZIP_STORED for each in members)
    if not stored or sum(each.file_size for each in members) > size:
        raise ValueError("it would unpack to more than its own size")
    if any(each.file_size > _LARGEST_PICKLE for each in members if each.filename.endswith(".pkl")):
        raise ValueError("its list of tensors is too long")


def _check_globals(file: IO[bytes]) -> None:
    for name in _globals(file):
        if name in _HARMLESS:
            raise ValueError(f"{name.replace(' ', '.')} is in no state dict")
        if not _ALLOWED.fullmatch(name):
            raise CodeError(name.replace(" ", "."))


def _globals(file: IO[bytes]) -> Iterator[str]:
    """What a pickle looks up by name, `module name`."""
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL":
                yield str(argument)
            elif opcode.name in _OTHER_LOOKUPS:  # torch writes none, and reads none
                yield opcode.name
    except (ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"its list of tensors is no pickle: {error}") from None
