"""The weights that the authors of BagNets published, and torchvision's of networks to compare with: where they are
kept, how they get there, how they are known.

A download gets its name when its SHA-256 begins as the name says: what has the name is whole.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import platformdirs

from bagindex import fetching
from bagindex.download import DownloadError, Progress, drop, part_of
from bagindex.errors import SettingsError, WeightsError
from bagindex.fetching import Note, alone, ignore, keep, mirror, proxy_text
from bagindex.registry import ARCHITECTURES, KERAS_SHA256, V2_URL, Published, published
from bagindex.store import file_sha256
from bagindex.text import did_you_mean, near


class State(StrEnum):
    """What stands at the place of a model's official weights."""

    HERE = "here"
    ABSENT = "not here"
    OTHER = "another SHA-256"


@dataclass(frozen=True)
class OfficialWeights:
    """One model's official weights.

    Attributes:
        model: the model's name.
        file: the file's name, which ends in the beginning of its SHA-256.
        url: where it is published.
        path: where it is kept, whether it is there or not.
        bytes: size of what is there.
        state: what is there.
    """

    model: str
    file: str
    url: str
    path: Path
    bytes: int | None
    state: State


def weights_folder() -> Path:
    """`BAGINDEX_WEIGHTS`, else below the platform's folder for what can be fetched again."""
    return Path(os.environ.get("BAGINDEX_WEIGHTS") or platformdirs.user_cache_path("bagindex") / "weights")


def base_url(folder: str) -> str:
    """`BAGINDEX_WEIGHTS_URL`, a mirror of all of them, else the folder that they are published in; without a slash at
    the end.

    Raises:
        SettingsError: it is no address of a web folder.
    """
    return mirror("BAGINDEX_WEIGHTS_URL", folder)


def status() -> list[OfficialWeights]:
    """All official weights there are, and whether they are here; their hashes are checked.

    Raises:
        SettingsError: `BAGINDEX_WEIGHTS_URL` is no address.
        WeightsError: the folder cannot be read.
    """
    with _folder_errors():
        return [_status(each) for each in published().values()]


def is_official(path: Path) -> bool:
    """Whether a file is a model's official weights, so that its classes are ImageNet's.

    It is when its SHA-256 begins as theirs, or when it stands at their place, where it was accepted by its hash.

    Raises:
        OSError: it cannot be read.
    """
    if any(path.absolute() == _path(each).absolute() for each in published().values()):
        return True
    sha256 = file_sha256(path)
    return sha256 in KERAS_SHA256.values() or any(sha256.startswith(each.sha256_start) for each in published().values())


def fetch(
    model: str | Published,
    *,
    allow_hash: str | None = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> Path:
    """A model's official weights, downloaded where they are not here yet. One process does at a time; others wait.

    Args:
        model: the model's name; or weights that are not among those known by name.
        allow_hash: 8 to 64 hexadecimal digits: a file is accepted, too, whose SHA-256 begins so.
        progress: hears of the download; goes back where it has to begin anew.
        note: hears of waiting and of further attempts.

    Raises:
        SettingsError: there is no such model, or `allow_hash` or `BAGINDEX_WEIGHTS_URL` is malformed.
        WeightsError: they have no known address, cannot be fetched or kept, or have another SHA-256. The text says
            which file to bring.
    """
    known, note = _known(model) if isinstance(model, str) else model, note or ignore
    starts = _accepted(known, allow_hash)
    path = _path(known)
    with _folder_errors():
        if not path.is_file():
            with alone(path, note):
                if not path.is_file():
                    _download(known, starts, progress or ignore, note)
                    return path
        sha256 = file_sha256(path)
        if not sha256.startswith(starts):
            raise WeightsError(
                f"{path} is refused: its SHA-256 should begin with {known.sha256_start}, but is {sha256}; "
                f"remove the file to fetch it anew, or give --allow-hash {sha256} if you know better"
            )
    return path


def install(file: Path, *, allow_hash: str | None = None, note: Note | None = None) -> OfficialWeights:
    """Put a file that was brought by hand where `fetch` finds it.

    Args:
        file: the file, whatever its name: it is known by its SHA-256.
        allow_hash: as for `fetch`; what is accepted by it is known by its name.
        note: hears of waiting.

    Raises:
        SettingsError: `allow_hash` is malformed.
        WeightsError: it is no model's official weights, cannot be read, or cannot be kept.
    """
    allowed = _hash_start(allow_hash)
    if not file.is_file():
        raise WeightsError(f"no file at {file}")
    try:
        sha256 = file_sha256(file)
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror}") from None
    known = next((each for each in published().values() if sha256.startswith(each.sha256_start)), None)
    if known is None and allowed is not None and sha256.startswith(allowed):
        known = next((each for each in published().values() if each.file == file.name), None)
    if known is None:
        names = ", ".join(f"{each.file} ({each.sha256_start}…)" for each in published().values())
        raise WeightsError(
            f"{file} has the SHA-256 {sha256}, which is none of the official weights': {names}; if you know better, "
            f"give it one of these names and --allow-hash {sha256}"
        )
    path = _path(known)
    with _folder_errors(), alone(path, note or ignore):
        if not (path.is_file() and path.samefile(file)):
            copy = path.with_name(f"{path.name}.copy")
            try:
                shutil.copyfile(file, copy)
                if file_sha256(copy) != sha256:
                    raise WeightsError(f"{file} has changed while it was copied: try again")
                keep(copy, path)
            finally:
                copy.unlink(missing_ok=True)
        drop(part_of(path))
    return _status(known)


def _download(known: Published, starts: tuple[str, ...], progress: Progress, note: Note) -> None:
    path, url = _path(known), _url(known)
    try:
        fetching.fetch(url, path, file_sha256, lambda sha256: sha256.startswith(starts), progress, note)
    except DownloadError as failure:
        raise WeightsError(_bring(known, str(failure), again=bool(failure.passing))) from None
    except fetching.RefusedError as refused:
        raise WeightsError(
            f"what {url} gives is refused: its SHA-256 should begin with {known.sha256_start}, but is "
            f"{refused.digest}; bring the right {path.name} and run `bagindex weights install FILE`, or give "
            f"--allow-hash {refused.digest} if you know better"
        ) from None


def _bring(known: Published, why: str, again: bool) -> str:
    """The error for who has no such network: which file, and where to."""
    path, url = _path(known), _url(known)
    return (
        f"cannot fetch the weights of {known.model}{proxy_text(url)}: {why}; "
        + ("the same command goes on later, or " if again else "")
        + f"bring {path.name} (its SHA-256 begins with {known.sha256_start}) from {url} and "
        + (
            f"run `bagindex weights install {path.name}`, which puts it at {path}"
            if known.model in published()
            else f"put it at {path}"
        )
    )


@contextmanager
def _folder_errors() -> Iterator[None]:
    """What the folder refuses, as an error to act on; the network's failures do not come through here as OSError."""
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"cannot keep weights in {weights_folder()}: {error.strerror or error}; mend that, or set BAGINDEX_WEIGHTS "
            "to another folder"
        ) from None


def _status(known: Published) -> OfficialWeights:
    path, state = _path(known), State.ABSENT
    if path.is_file():
        state = State.HERE if file_sha256(path).startswith(known.sha256_start) else State.OTHER
    size = None if state is State.ABSENT else path.stat().st_size
    return OfficialWeights(known.model, path.name, _url(known), path, size, state)


def _known(model: str) -> Published:
    known = published()
    if model in ARCHITECTURES and model not in known:
        raise WeightsError(
            f"the weights of {model} have no address that is known: bring them from {V2_URL}, and give --weights FILE"
        )
    if model not in known:
        hint = did_you_mean(near(model, known)) or f"choose from {', '.join(known)}"
        raise SettingsError(f"there is no model {model!r}: {hint}")
    return known[model]


def _hash_start(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[\da-fA-F]{8,64}", text):
        raise SettingsError("--allow-hash takes a SHA-256, or 8 or more of its first hexadecimal digits")
    return text.lower() if text else None


def _accepted(known: Published, allow_hash: str | None) -> tuple[str, ...]:
    allowed = _hash_start(allow_hash)
    return (known.sha256_start, *([allowed] if allowed else []))


def _path(known: Published) -> Path:
    return weights_folder() / known.file


def _url(known: Published) -> str:
    return f"{base_url(known.folder)}/{known.file}"
