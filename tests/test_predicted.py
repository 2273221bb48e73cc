"""What networks predict for an index's images: right, once, and gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bagindex.errors import OutputError, SourceError
from bagindex.experiments import predicted
from bagindex.experiments.networks import Network
from bagindex.experiments.predicted import Predicted, from_source, predict
from bagindex.images import read_picture
from bagindex.observer import BuildObserver
from bagindex.sources.opening import reader_at
from bagindex_schemas.records import Plan, ShardRange, SourceRecord, Transform
from fakes import class_records, number_png

PLAN = Plan(
    source=SourceRecord(kind="memory", name="m", location="m", fingerprint="f", files=9, listed=9),
    transform=Transform(resize=4, crop_height=4, crop_width=4),
    classes=class_records(("red", "green", "blue")),
    labels={},
    pixels=True,
    shards=(ShardRange(first=0, count=9),),
)
IDS = np.array([1, 2, 5, 7], np.int64)


class Mean(nn.Module):
    """A network whose logits are the mean colour."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


NETWORK = Network("mean", Mean(), (2, 1, 0), "0" * 64, "a mean", False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Stored:
    """Inputs whose colour is the image's number; remembers what was asked for."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.fail_at = fail_at

    def __call__(self, image_ids: Sequence[int]) -> Mapping[int, NDArray[np.uint8]]:
        if self.fail_at in image_ids:
            raise KeyboardInterrupt
        self.asked += image_ids
        return {each: np.full((4, 4, 3), [each, 0, 255 - each], np.uint8) for each in image_ids}


def colours(ids: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.stack([255 - ids, 0 * ids, ids], axis=1).astype(np.float32) / np.float32(255)


def test_logits_are_in_the_order_of_the_indexs_classes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = predict(NETWORK, PLAN, IDS, Stored(), tmp_path, device="cpu", progress=lambda *n: seen.append(n))
    assert found.logits is not None
    np.testing.assert_allclose(found.logits, colours(IDS), atol=1e-6)
    assert (found.name, found.origin, found.published) == ("mean", "a mean", False)
    assert found.predicted.tolist() == [0, 0, 0, 0]
    assert found.top5[0].tolist() == [0, 2, 1]
    assert seen == [(0, 4), (4, 4)]


def test_equal_logits_are_ranked_as_in_an_index() -> None:
    found = Predicted.of("n", IDS[:1], np.array([[1, 3, 3, 0, 3, 2, 2]], np.float32), "", False)
    assert (found.predicted.tolist(), found.top5.tolist()) == ([1], [[1, 2, 4, 5, 6]])


def test_one_pass_serves_all_and_more_images_are_added(tmp_path: Path) -> None:
    stored = Stored()
    first = predict(NETWORK, PLAN, IDS[1:3], stored, tmp_path, device="cpu")
    again = predict(NETWORK, PLAN, IDS, stored, tmp_path, device="cpu")
    assert stored.asked == [2, 5, 1, 7]
    assert first.logits is not None
    assert again.logits is not None
    np.testing.assert_array_equal(again.logits[1:3], first.logits)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicted, "_PART", 2)
    with pytest.raises(KeyboardInterrupt):
        predict(NETWORK, PLAN, IDS, Stored(fail_at=7), tmp_path, device="cpu")
    stored = Stored()
    found = predict(NETWORK, PLAN, IDS, stored, tmp_path, device="cpu")
    assert stored.asked == [5, 7]
    assert found.logits is not None
    np.testing.assert_allclose(found.logits, colours(IDS), atol=1e-6)


@pytest.mark.parametrize(
    ("network", "plan"),
    [
        (replace(NETWORK, sha256="1" * 64), PLAN),
        (replace(NETWORK, places=(0, 1, 2)), PLAN),
        (replace(NETWORK, mean=(0.5, 0.5, 0.5)), PLAN),
        (NETWORK, PLAN.model_copy(update={"transform": Transform(resize=5, crop_height=4, crop_width=4)})),
    ],
)
def test_what_is_kept_is_of_this_index_and_network(network: Network, plan: Plan, tmp_path: Path) -> None:
    predict(NETWORK, PLAN, IDS, Stored(), tmp_path, device="cpu")
    stored = Stored()
    predict(network, plan, IDS, stored, tmp_path, device="cpu")
    assert stored.asked == IDS.tolist()


def test_damaged_files_are_computed_again(tmp_path: Path) -> None:
    predict(NETWORK, PLAN, IDS, Stored(), tmp_path, device="cpu")
    (file,) = tmp_path.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-40])
    stored = Stored()
    predict(NETWORK, PLAN, IDS, stored, tmp_path, device="cpu")
    assert stored.asked == IDS.tolist()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "networks").write_text("")
    with pytest.raises(OutputError, match="cannot keep predictions in"):
        predict(NETWORK, PLAN, IDS, Stored(), tmp_path, device="cpu")


def test_images_whose_pixels_are_not_kept_are_decoded_again(tmp_path: Path) -> None:
    data = number_png(7, 9)
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "b.png").write_bytes(data + b"changed")
    sha256 = hashlib.sha256(data).hexdigest()
    images = {3: ("a.png", sha256), 4: ("b.png", sha256), 5: ("c.png", sha256)}
    inputs = from_source(reader_at(tmp_path, BuildObserver()), tmp_path, images, PLAN.transform)
    np.testing.assert_array_equal(inputs([3])[3], read_picture(data, PLAN.transform).pixels)
    with pytest.raises(SourceError, match=r"b\.png in .* has changed since it was indexed"):
        inputs([4])
    with pytest.raises(SourceError, match=r"cannot read c\.png in .*: not there; say where the source is"):
        inputs([5])


def test_a_network_is_on_the_cpu_again_afterwards(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), Mean())
    predict(replace(NETWORK, module=module), PLAN, IDS, Stored(), tmp_path)
    assert next(module.parameters()).device == torch.device("cpu")
