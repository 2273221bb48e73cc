"""Parts of an image that act apart, and parts that do not: Equation 1 of the paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bagindex import Index
from bagindex.errors import QueryError
from bagindex.experiments import interactions
from bagindex.experiments.correlation import pearson
from bagindex.experiments.interactions import changes, flatten, squares
from test_against import setting
from test_model import UNPADDED, procedural, procedural_model


def test_every_second_square_of_every_second_row() -> None:
    assert squares(16, 11, 4) == ((0, 0, 4, 4), (0, 8, 4, 12))
    assert squares(12, 12, 4) == ((0, 0, 4, 4), (8, 0, 12, 4), (0, 8, 4, 12), (8, 8, 12, 12))
    assert squares(3, 9, 4) == ()


def test_a_square_becomes_its_mean_colour() -> None:
    image = torch.arange(2 * 4 * 4, dtype=torch.float64).reshape(2, 4, 4)
    found = flatten(image, [(0, 0, 2, 2), (2, 2, 4, 4)])
    assert found[0].tolist() == [[2.5, 2.5, 2, 3], [2.5, 2.5, 6, 7], [8, 9, 12.5, 12.5], [12, 13, 12.5, 12.5]]
    torch.testing.assert_close(found.mean(dim=(1, 2)), image.mean(dim=(1, 2)))
    assert image[0, 0, 0] == 0


def test_both_sides_of_the_equation_by_hand() -> None:
    """Two pixels whose product is the logit: alone each takes all of it away, together they take it away once."""
    image = torch.tensor([[[2.0, 5.0]], [[0.0, 0.0]], [[0.0, 0.0]]])

    def product(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 0, 0] * x[:, 0, 0, 1], x[:, 0, 0, 0] + x[:, 0, 0, 1]], dim=1)

    def zeroed(image: Tensor, boxes: object) -> Tensor:
        changed = image.clone()
        for x0, _, x1, _ in boxes:  # type: ignore[attr-defined]
            changed[:, :, x0:x1] = 0
        return changed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interactions, "flatten", zeroed)
        joint, summed, logits = changes(product, image, [(0, 0, 1, 1), (1, 0, 2, 1)], at_once=3)
    assert (joint.tolist(), summed.tolist(), logits.tolist()) == ([10, 7], [20, 7], [10, 7])


@pytest.mark.parametrize("name", UNPADDED)
def test_squares_further_apart_than_a_patch_act_apart_in_a_bagnet(name: str) -> None:
    """To the rounding of float64; nearer to each other they do not, so it is no matter of course."""
    model = procedural_model(name, 4, width=0.25).double()
    field = model.architecture.receptive_field
    image = (procedural("input", (1, 3, 3 * field, 3 * field))[0] - 0.5).double()
    with torch.inference_mode():
        joint, summed, logits = changes(model, image, squares(*image.shape[1:], field))
        near, sums, _ = changes(model, image, squares(*image.shape[1:], field // 4))
    size = float(logits.abs().max())
    assert float(joint.abs().max()) > 1e-3 * size
    torch.testing.assert_close(joint, summed, rtol=0, atol=1e-12 * size)
    assert pearson(joint.numpy(), summed.numpy()) == pytest.approx(1, abs=1e-12)
    assert float((near - sums).abs().max()) > 1e-4 * size


def test_interactions_of_an_index(planted_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactions, "SIZES", (20, 40))
    (outcome,) = planted_index.reproduce(
        "interactions", tmp_path, against=["random:shufflenet_v2_x0_5"], limit=2, device="cpu"
    ).outcomes
    rows = {(row["network"], row["size"]): row for row in outcome.tables["interactions"].to_pylist()}
    assert [key[0] for key in rows] == ["bagnet33"] * 2 + ["shufflenet_v2_x0_5"] * 2
    apart, near, other = rows["bagnet33", 40], rows["bagnet33", 20], rows["shufflenet_v2_x0_5", 40]
    assert (apart["squares"], near["squares"], apart["images"]) == (4, 16, 2)
    assert apart["pearson"] == pytest.approx(1, abs=1e-9)
    assert apart["largest_difference"] < 1e-3 < near["largest_difference"]
    assert other["largest_difference"] > 1e-3 * abs(other["joint_mean"])
    (beside,) = outcome.beside
    assert (beside.paper, beside.comparable) == (1.0, True)
    assert beside.ours == apart["pearson"]
    assert (tmp_path / "interactions.png").is_file()


def test_inputs_too_small_for_squares(tmp_path: Path) -> None:
    given = setting(tmp_path)
    with pytest.raises(QueryError, match="inputs of 16 × 16 pixels are too small for squares of 16 pixels"):
        interactions.run(given)


def test_what_is_slow_takes_few_images(tmp_path: Path) -> None:
    given = setting(tmp_path)
    assert np.array_equal(given.few(8), [0, 2])  # a quarter, on a CPU
    assert np.array_equal(replace(given, limit=4).few(4), [0, 1, 2, 3])
    assert np.array_equal(replace(given, limit=4, sparing=True).few(4), [0])
