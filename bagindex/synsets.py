"""The classes in the devkit's `meta.mat`, read in a process of its own: SciPy's reader crashes on some damaged ones."""

from __future__ import annotations

import io
import time
from contextlib import closing
from functools import lru_cache

from bagindex.processes import frames, inside
from bagindex.processes.child import Child

_SECONDS = 60.0
_MEMORY = 4_000_000_000
"""Bytes of address space that the process may take."""
_LARGEST = 2**28
_MOST_SAID = 2**20
"""Bytes; of 1,000 classes it says 30,000."""


@lru_cache(maxsize=2)
def read_synsets(data: bytes) -> tuple[tuple[int, str], ...]:
    """The ILSVRC id and the wnid of each class, but not of families of classes; kept, for it takes half a second.

    Raises:
        ValueError: it is no such file.
    """
    if len(data) > _LARGEST:
        raise ValueError("it is too large")
    child = Child(__name__)
    try:
        deadline = time.monotonic() + _SECONDS
        frames.send(child.to, frames.Kind.BYTES, data, deadline)
        said = frames.receive_json(child.answers, _MOST_SAID, deadline)
    except (OSError, EOFError, frames.LateError):
        raise ValueError("nothing can read it") from None
    finally:
        child.kill()
    if "error" in said:
        raise ValueError(said["error"])
    return tuple((int(number), str(wnid)) for number, wnid in said["classes"])


def main() -> None:
    """What the process does."""
    answers = inside.own_answers()
    inside.end_with_parent()
    inside.give_up_after(_SECONDS)
    _, data = frames.receive(0, _LARGEST)
    # Before the limit: what is imported takes address space, too.
    import numpy as np
    from scipy.io import loadmat  # type: ignore[import-untyped]

    inside.limit(_MEMORY)
    try:
        with closing(io.BytesIO(data)) as file:
            synsets = np.atleast_1d(loadmat(file, squeeze_me=True, variable_names=["synsets"])["synsets"])
        leaves = [row for row in synsets if int(row["num_children"]) == 0]
        classes = [(int(row["ILSVRC2012_ID"]), str(row["WNID"])) for row in leaves]
    except Exception as error:  # scipy raises whatever it likes on a damaged file
        frames.send_json(answers, error=str(error) or type(error).__name__)
    else:
        frames.send_json(answers, classes=classes)
