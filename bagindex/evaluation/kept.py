"""What a benchmark has found for images, kept beside its results: a run that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex.durable import replace_file
from bagindex.errors import OutputError

Arrays = dict[str, NDArray[Any]]
"""What was found for an image, by a name."""
_IDS = ("image_ids", "class_ids")


class Kept:
    """Arrays for images, in files of some images each.

    Args:
        folder: of the results.
        name: of what they are, for people.
        facts: all that they depend on, for JSON: of other facts nothing is read.
        shapes: of each array that there is for an image.
    """

    def __init__(self, folder: Path, name: str, facts: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self._folder = folder / "kept" / f"{re.sub(r'[^A-Za-z0-9-]+', '-', name)[:40]}-{digest[:16]}"
        self._shapes = dict(shapes)

    def read(self, classes: Mapping[int, int]) -> dict[int, Arrays]:
        """What there is for those of some images that have something, by their ids.

        Args:
            classes: the class of each image that it is to be about.
        """
        found: dict[int, Arrays] = {}
        for path in sorted(self._folder.glob("*.npz")):
            try:
                with path.open("rb") as opened, np.load(opened) as file:
                    there = {name: file[name] for name in (*_IDS, *self._shapes)}
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue  # computed again
            image_ids, class_ids = (there.pop(name).tolist() for name in _IDS)
            if any(there[name].shape != (len(image_ids), *shape) for name, shape in self._shapes.items()):
                continue
            for place, (image_id, class_id) in enumerate(zip(image_ids, class_ids, strict=True)):
                if classes.get(image_id) == class_id:
                    found[image_id] = {name: values[place] for name, values in there.items()}
        return found

    def write(self, found: Mapping[int, Arrays], classes: Mapping[int, int]) -> None:
        """Keep what was found for some images, about these classes.

        Raises:
            OutputError: it cannot be written.
        """
        if not found:
            return
        ids = {"image_ids": list(found), "class_ids": [classes[image_id] for image_id in found]}
        arrays = {name: np.stack([row[name] for row in found.values()]) for name in self._shapes}
        data = io.BytesIO()
        np.savez(data, **{name: np.array(each, np.int64) for name, each in ids.items()}, **arrays)  # type: ignore[arg-type]
        # A name that says what is in it: of another run's file of the same images nothing is lost.
        name = hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / f"{name}.npz", data.getvalue())
        except OSError as error:
            raise OutputError(f"cannot keep attributions in {self._folder}: {error.strerror or error}") from None
