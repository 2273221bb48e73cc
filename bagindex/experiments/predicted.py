"""What networks predict for the images of an index: computed once for all experiments, and kept beside their results.

What is kept belongs to the index's plan and to the network's weights. A run that was cut off goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from bagindex.compute import find_device
from bagindex.decoders.pool import DEFAULT_SECONDS, decode
from bagindex.durable import publish
from bagindex.errors import OutputError, SourceError
from bagindex.experiments.networks import Network
from bagindex.images import MAX_PIXELS, Rejected
from bagindex.sources import Entry, Reader
from bagindex_schemas.records import Plan, Transform

Inputs = Callable[[Sequence[int]], Mapping[int, NDArray[np.uint8]]]
"""Gives the inputs of some images before normalisation, uint8 [height, width, RGB], by their ids."""
AT_ONCE = {"cpu": 8, "cuda": 64}
"""Images that a network takes at a time, by the kind of device."""
_PART = 128
"""Images in a file of what is kept, and so at most to compute again."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a network predicts.

    Attributes:
        name: the network's.
        image_ids: int64 [N], ascending.
        predicted: the class with the largest logit, int32 [N].
        top5: the classes with the largest logits, largest first, int32 [N, up to 5].
        logits: float32 [N, C] in the order of the index's classes; None where only classes are known.
        origin: what predicted it, for people.
        published: as for `Network`.
    """

    name: str
    image_ids: NDArray[np.int64]
    predicted: NDArray[np.int32]
    top5: NDArray[np.int32]
    logits: NDArray[np.float32] | None
    origin: str
    published: bool

    @classmethod
    def of(
        cls, name: str, image_ids: NDArray[np.int64], logits: NDArray[np.float32], origin: str, published: bool
    ) -> Predicted:
        """From logits, float32 [N, C]; of equal ones the first class counts, as in an index."""
        top5 = np.argsort(-logits, axis=1, kind="stable")[:, :5].astype(np.int32)
        return cls(name, image_ids, top5[:, 0], top5, logits, origin, published)


def predict(
    network: Network,
    plan: Plan,
    image_ids: NDArray[np.int64],
    inputs: Inputs,
    folder: Path,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Predicted:
    """Run a network on images of an index, in float32; what was kept of an earlier run is not computed again.

    Args:
        network: which.
        plan: the index's.
        image_ids: which images, int64 [N], ascending.
        inputs: gives their inputs.
        folder: where the results of experiments are; what is predicted is kept in `networks/` below.
        device: where the network runs; afterwards it is on the CPU again.
        progress: hears how many of how many images are done.

    Raises:
        SettingsError: the network does not take such inputs, or there is no such device.
        OutputError: the folder cannot be written.
        NotKeptError, SourceError: there are no inputs.
    """
    kept = _Kept(network, plan, folder)
    logits = kept.read(image_ids)
    missing = [image_id for image_id in image_ids.tolist() if image_id not in logits]
    place = find_device(device)
    total = len(image_ids)
    progress(total - len(missing), total)
    if missing:
        network.module.to(place)
        try:
            for start in range(0, len(missing), _PART):
                part = missing[start : start + _PART]
                rows = _run(network, part, inputs, place)
                kept.write(part, rows)
                logits.update(zip(part, rows, strict=True))
                progress(total - len(missing) + start + len(part), total)
        finally:
            network.module.to("cpu")
    table = np.stack([logits[image_id] for image_id in image_ids.tolist()]) if total else np.empty((0, 1), np.float32)
    return Predicted.of(network.name, image_ids, table, network.origin, network.published)


def _run(network: Network, image_ids: Sequence[int], inputs: Inputs, device: torch.device) -> NDArray[np.float32]:
    """Logits of some images, float32 [N, C]."""
    rows, at_once = [], AT_ONCE.get(device.type, 8)
    for start in range(0, len(image_ids), at_once):
        batch = image_ids[start : start + at_once]
        found = inputs(batch)
        pixels = torch.from_numpy(np.stack([found[image_id] for image_id in batch])).to(device)
        with torch.inference_mode():
            rows.append(network.logits(network.normalise(pixels)).cpu().numpy())
    return np.concatenate(rows)


class _Kept:
    """Logits of one network for images of one index, in files of some images each."""

    def __init__(self, network: Network, plan: Plan, folder: Path) -> None:
        facts = [plan.digest(), network.sha256, network.places, network.mean, network.std]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        self._folder = folder / "networks" / f"{network.name}-{digest[:16]}"
        row = pa.list_(pa.field("element", pa.float32(), nullable=False), len(network.places))
        self._schema = pa.schema(
            [pa.field("image_id", pa.int64(), nullable=False), pa.field("logits", row, nullable=False)]
        )

    def read(self, image_ids: Iterable[int]) -> dict[int, NDArray[np.float32]]:
        """The logits of those of the images that are there, float32 [C] each."""
        wanted = set(image_ids)
        found: dict[int, NDArray[np.float32]] = {}
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                table = pq.read_table(path)
            except (OSError, pa.ArrowException):
                continue  # computed again
            if table.schema.equals(self._schema):
                rows = table["logits"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
                found.update(
                    (image_id, row)
                    for image_id, row in zip(table["image_id"].to_pylist(), rows, strict=True)
                    if image_id in wanted
                )
        return found

    def write(self, image_ids: Sequence[int], logits: NDArray[np.float32]) -> None:
        """Keep the logits of some images, float32 [N, C]."""
        values = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), type=self._schema.field(1).type)
        table = pa.table([pa.array(image_ids, pa.int64()), values], schema=self._schema)
        # A name that says what is in it: of another run's file of the same images nothing is lost.
        name = hashlib.sha256(json.dumps(list(image_ids)).encode()).hexdigest()[:16]
        path = self._folder / f"{name}.parquet"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            pq.write_table(table, temporary)
            publish(temporary, path)
        except OSError as error:
            raise OutputError(f"cannot keep predictions in {self._folder}: {error.strerror or error}") from None


def from_source(reader: Reader, where: object, images: Mapping[int, tuple[str, str]], transform: Transform) -> Inputs:
    """Inputs of images whose pixels an index does not keep, decoded from the source's files again.

    Args:
        reader: reads the source's files.
        where: where the source is now, for people.
        images: path in the source and SHA-256 of each image, by its id.
        transform: the index's.

    Returns:
        What gives them; it raises SourceError where a file is not what was indexed.
    """

    def read(image_id: int) -> NDArray[np.uint8]:
        path, sha256 = images[image_id]
        try:
            data = reader.read(Entry(path.encode(), None))
        except Rejected as error:
            raise SourceError(f"cannot read {path} in {where}: {error.message}; say where the source is now") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise SourceError(f"{path} in {where} has changed since it was indexed: put it back")
        try:
            return decode(data, transform, DEFAULT_SECONDS, MAX_PIXELS).pixels
        except Rejected as error:
            raise SourceError(f"{path} in {where} cannot be decoded any more: {error.message}") from None

    return lambda image_ids: {image_id: read(image_id) for image_id in image_ids}
