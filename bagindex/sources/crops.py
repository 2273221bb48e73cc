"""Boxes of pictures, each of which is an image of its own: a CSV file of them, or COCO's JSON.

An entry is called `FILE#x0,y0,x1,y1`: pixels of the upright picture, x to the right, y down, the upper ends excluded.
Its bytes are the box as a PPM file, so that they are the same wherever it is cut. A picture is decoded once for the
boxes of it that are read one after the other.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex.decoders import pool
from bagindex.errors import LabelError, SourceError
from bagindex.geometry import Box, cut
from bagindex.images import Rejected
from bagindex.labels import read_csv_rows
from bagindex.sources import Entry, ListedSource, place_hash, source_name
from bagindex.sources.folders import FolderSource, Layout
from bagindex.sources.plain import as_ppm
from bagindex_schemas.rejects import RejectCode

_EDGES = ("x0", "y0", "x1", "y1")
_SIZES = ("x", "y", "width", "height")
_KEPT_BYTES = 2**28
"""Decoded pictures that stay for their next boxes; the last one does, however large."""
_FARTHEST = 2**31


@dataclass(frozen=True)
class _Row:
    """A box as it is listed; `where` says it to people."""

    where: str
    path: str
    box: tuple[float, float, float, float]
    label: str | None


class CropReader:
    """Cuts boxes out of the files of a folder. Safe to use from several threads."""

    def __init__(self, files: FolderSource) -> None:
        self._files = files
        self._decoded: OrderedDict[bytes, Future[NDArray[np.uint8]]] = OrderedDict()
        self._looking = threading.Lock()

    def __reduce__(self) -> tuple[type[CropReader], tuple[FolderSource]]:
        """For other processes."""
        return CropReader, (self._files,)

    def read(self, entry: Entry) -> bytes:
        """A box as a PPM file; what of it is not in the picture is left out.

        Raises:
            Rejected: the file cannot be read or decoded, has changed, or has nothing of the box.
            DecoderError: no process can be started that decodes.
        """
        path, box = _parse(entry.path)
        pixels = self._picture(Entry(path, int(entry.version) if entry.version else None))
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = box
        inside = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            raise Rejected(RejectCode.TOO_SMALL, f"nothing of the box is in the picture of {width} x {height}")
        return as_ppm(cut(pixels, inside))

    def _picture(self, file: Entry) -> NDArray[np.uint8]:
        """A file's pixels, uint8 [height, width, RGB]; who else wants it meanwhile waits."""
        with self._looking:
            known = self._decoded.get(file.path)
            found = self._decoded[file.path] = known or Future()
            self._decoded.move_to_end(file.path)
        if known is None:
            try:
                found.set_result(pool.decode(self._files.read(file), None).pixels)
            except BaseException as error:
                found.set_exception(error)
            self._drop()
        return found.result()

    def _drop(self) -> None:
        with self._looking:
            kept = 0
            for path, found in list(reversed(self._decoded.items())):
                if not found.done():
                    continue
                error = found.exception()
                kept += 0 if error else found.result().nbytes
                passing = error is not None and not isinstance(error, Rejected)
                if passing or (kept > _KEPT_BYTES and path != next(reversed(self._decoded))):
                    del self._decoded[path]


def open_crops(listing: Path, data: Path | None, label: str | None, follow_symlinks: bool) -> ListedSource:
    """List boxes of pictures.

    Args:
        listing: a CSV file with the columns `path,x0,y0,x1,y1` or `path,x,y,width,height`, and perhaps `label`; or a
            JSON file with COCO's `images`, `annotations` and `categories`.
        data: the folder of the pictures; by default the list's own.
        label: another column of labels.
        follow_symlinks: read what symbolic links point to.

    Raises:
        SourceError: it cannot be read, lists no boxes or one twice, or there is no such folder.
        LabelError: it is no such CSV file.
    """
    if not listing.is_file():
        raise SourceError(f"the source {listing} does not exist: give a list of boxes")
    root = (listing.parent if data is None else data).resolve()
    if not root.is_dir():
        raise SourceError(f"the pictures' folder {root} is not there: say with --data where it is")
    rows = _coco(listing) if listing.suffix.lower() == ".json" else _csv(listing, label)
    entries = list(_entries(rows, root, listing))
    if not entries:
        raise SourceError(f"{listing} lists no boxes")
    entries.sort(key=lambda entry: entry.path)
    files = FolderSource(root, Layout.FLAT, root.name, (), follow_symlinks)
    place = listing.resolve()
    return ListedSource(
        "crops", source_name(place.stem, place.parent.name), place_hash(place), entries, CropReader(files)
    )


def _entries(rows: Iterable[_Row], root: Path, listing: Path) -> Iterator[Entry]:
    sizes: dict[str, int | None] = {}
    seen: set[bytes] = set()
    for row in rows:
        path = os.path.normpath(row.path) if row.path else ""
        if path in ("", ".", "..") or path.startswith(("/", "../")):
            raise SourceError(f"{listing}, {row.where}: {row.path!r} is not below {root}")
        if path not in sizes:
            sizes[path] = _size(root / path)
        box = _round(row, listing)
        name = os.fsencode(f"{path}#{','.join(map(str, box))}")
        if name in seen:
            raise SourceError(f"{listing}, {row.where}: this box of {path} is listed twice")
        seen.add(name)
        size = sizes[path]
        if size is None:
            gone = Rejected(RejectCode.MISSING, f"listed in {listing.name}, but not there")
            yield Entry(name, 0, row.label, gone)
        else:
            yield Entry(name, None, row.label, _empty(box, f"{listing.name}, {row.where}"), str(size))


def _csv(listing: Path, label: str | None) -> Iterator[_Row]:
    rows = read_csv_rows(listing, ("path", *([label.lower()] if label else [])))
    columns = rows[0][1].keys() if rows else ()
    chosen = next((names for names in (_EDGES, _SIZES) if set(names) <= set(columns)), None)
    if rows and chosen is None:
        either = " or ".join(",".join(("path", *names)) for names in (_EDGES, _SIZES))
        raise SourceError(f"{listing} needs the columns {either}; it has {','.join(columns)}")
    for line, cells in rows:
        where = f"line {line}"
        numbers = [_number(cells[name], f"{listing}, {where}: {name}") for name in chosen or ()]
        named = cells.get(label.lower() if label else "label")
        yield _Row(where, cells["path"], _box(numbers, chosen is _SIZES), named or None)


def _coco(listing: Path) -> Iterator[_Row]:
    try:
        found = json.loads(listing.read_bytes())
        files = {each["id"]: str(each["file_name"]) for each in found["images"]}
        names = {each["id"]: str(each["name"]) for each in found["categories"]}
        boxes: list[Mapping[str, Any]] = found["annotations"]
    except OSError as error:
        raise SourceError(f"cannot read {listing}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SourceError(f"{listing} is no JSON file with COCO's images, annotations and categories") from None
    for place, each in enumerate(boxes):
        where = f"annotation {place}"
        try:
            numbers = [float(number) for number in each["bbox"]]
            x, y, width, height = numbers
            yield _Row(where, files[each["image_id"]], (x, y, x + width, y + height), names[each["category_id"]])
        except (ValueError, KeyError, TypeError):
            raise SourceError(f"{listing}, {where}: needs image_id, category_id and bbox, as COCO has them") from None


def _box(numbers: list[float], sizes: bool) -> tuple[float, float, float, float]:
    x, y, a, b = numbers
    return (x, y, x + a, y + b) if sizes else (x, y, a, b)


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise LabelError(f"{what} is {text!r}, where pixels are to be") from None


def _round(row: _Row, listing: Path) -> Box:
    """The box with its edges on pixels' edges."""
    if not all(math.isfinite(edge) and abs(edge) < _FARTHEST for edge in row.box):
        raise SourceError(f"{listing}, {row.where}: {row.box} is no box of a picture")
    x0, y0, x1, y1 = (round(edge) for edge in row.box)
    return x0, y0, x1, y1


def _empty(box: Box, where: str) -> Rejected | None:
    """What is wrong with a box that holds no pixel."""
    x0, y0, x1, y1 = box
    if x0 < x1 and y0 < y1:
        return None
    how = f"x1 ({x1}) is to be beyond x0 ({x0})" if x0 >= x1 else f"y1 ({y1}) is to be beyond y0 ({y0})"
    return Rejected(RejectCode.TOO_SMALL, f"{where}: the box is empty: {how}")


def _parse(path: bytes) -> tuple[bytes, Box]:
    file, _, numbers = path.rpartition(b"#")
    x0, y0, x1, y1 = (int(number) for number in numbers.split(b","))
    return file, (x0, y0, x1, y1)


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
