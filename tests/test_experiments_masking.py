"""Images masked by attribution methods and by BagNets' evidence, and the sheet of both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bagindex import Index
from bagindex.attribution.method import Method, Request
from bagindex.errors import AttributionError, QueryError
from bagindex.experiments import gallery, masking
from bagindex.experiments.attributing import Explained, attributions, explained_networks, heatmaps
from bagindex.experiments.networks import Network
from test_against import setting

FEW = ("random", "deeplift")
COUNTS = (0, 20, 100)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer methods and steps: each network runs on each image for all of them."""
    monkeypatch.setattr(masking, "METHODS", FEW)
    monkeypatch.setattr(masking, "COUNTS", COUNTS)
    monkeypatch.setattr(gallery, "PAPERS", FEW[1:])


@pytest.fixture
def turned(planted_index: Index, tmp_path: Path) -> str:
    """The index's own model as a network to compare with, its classes in another order."""
    state = load_file(planted_index.path / "bagnet33" / "model.safetensors")
    state |= {name: state[name].flip(0).contiguous() for name in ("fc.weight", "fc.bias")}
    names = [record.name for record in planted_index.classes][::-1]
    file = tmp_path / "turned.safetensors"
    save_file(state, file, {"model": "bagnet33", "classes": json.dumps(names)})
    return f"turned={file}"


@pytest.mark.usefixtures("few")
def test_masking_images_of_an_index(planted_index: Index, turned: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (outcome,) = planted_index.reproduce("masking", out, against=[turned], limit=2, device="cpu").outcomes
    own, other = outcome.tables["masking"].to_pylist()
    assert list(own) == ["network", "images", "nothing", *FEW, "bagnet33 heatmap"]
    assert (own["network"], other["network"], own["images"]) == ("bagnet33", "turned", 2)
    # The same network, whatever the order of its classes.
    for name in own.keys() - {"network"}:
        assert other[name] == pytest.approx(own[name], abs=1e-4), name
    sql = "SELECT avg(probability) AS mean FROM predictions WHERE image_id IN (0, 24)"
    assert own["nothing"] == pytest.approx(planted_index.sql(sql).to_dicts()[0]["mean"], abs=1e-4)
    curves = outcome.tables["curves"].to_pylist()
    assert [row["masked"] for row in curves[:3]] == list(COUNTS)
    assert len(curves) == 2 * 3 * len(COUNTS)
    # What decides is planted, on a small part of the image: to know where is worth more than chance.
    early = {row["maps"]: row["probability"] for row in curves if (row["network"], row["masked"]) == ("bagnet33", 20)}
    assert max(early["deeplift"], early["bagnet33 heatmap"]) < early["random"]
    assert all(row["low"] - 1e-9 <= row["probability"] <= row["high"] + 1e-9 for row in curves)
    assert [row["maps"] for row in outcome.tables["maps"].to_pylist()[:3]] == [*FEW, "bagnet33 heatmap"]
    assert outcome.settings["masked_becomes"] == 0
    assert "become 0 after normalisation, which is the mean colour" in outcome.remarks[0]
    assert "Not comparable with the paper's Table 1: other images: 2 of" in outcome.remarks[1]
    assert "other weights than published ones (bagnet33, turned)" in outcome.remarks[1]
    assert {path.name for path in out.glob("*.png")} == {"masking.png"}


@pytest.mark.usefixtures("few")
def test_a_sheet_of_maps(planted_index: Index, turned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone,) = planted_index.reproduce("gallery", tmp_path / "a", limit=1, device="cpu").outcomes
    assert [row["maps"] for row in alone.tables["gallery"].to_pylist()] == [*FEW[1:], "bagnet33 heatmap"]
    monkeypatch.setattr(gallery, "_ROWS", 1)
    (beside,) = planted_index.reproduce("gallery", tmp_path / "b", against=[turned], limit=2, device="cpu").outcomes
    rows = beside.tables["gallery"].to_pylist()
    assert {(row["image_id"], row["network"]) for row in rows} == {(0, "turned")}
    figure = beside.figures["gallery"]
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 3
    assert "Of 2 images 1 are on the sheet" in beside.remarks[1]
    # The same network decides the same, for the same reasons.
    for one, other in zip(alone.tables["gallery"].to_pylist(), rows, strict=False):
        assert (one["class"], one["maps"]) == (other["class"], other["maps"])
        assert other["colours_end"] == pytest.approx(one["colours_end"], rel=1e-3)


def test_a_heatmap_is_the_evidence_at_every_pixel(planted_index: Index, tmp_path: Path) -> None:
    given = replace(
        setting(tmp_path),
        index=planted_index,
        catalog=planted_index._catalog,
        models=("bagnet33",),
        image_ids=np.arange(1),
    )
    (explained,) = explained_networks(given, given.image_ids)
    asked = [replace(explained, leading=np.array([class_id])) for class_id in (4, 1)]
    found = heatmaps(given, given.image_ids, asked, lambda each: each)
    expected = planted_index.heatmap(0, classes=[4, 1], dense=True).values
    for (maps,), values in zip(found, expected, strict=True):
        assert maps.name == "bagnet33 heatmap"
        np.testing.assert_allclose(maps.values[0], values, rtol=1e-5, atol=1e-5)


def test_inputs_of_too_few_squares(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="inputs of 16 × 16 pixels have 4 squares of 8 pixels, and 100 are to be"):
        masking.run(setting(tmp_path))


def failing(request: Request) -> Tensor:
    """A method that cannot do it."""
    raise AttributionError("this network is too deep for it")


def gradient(request: Request) -> Tensor:
    """One that can."""
    return request.inputs


@pytest.mark.parametrize("methods", [("random", "failing", "gradient"), ("random", "failing")])
def test_a_method_that_cannot_explain_a_network_is_left_out(methods: Sequence[str], tmp_path: Path) -> None:
    given = setting(tmp_path)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    network = Network("linear", module, (0, 1, 2), "0" * 64, "a linear network", False)
    explained = Explained(network, np.zeros(2, np.int64), np.ones(2))
    runs = {"failing": failing, "gradient": gradient, "random": gradient}
    asked = [Method(name, name, "test", runs[name]) for name in methods]
    if "gradient" not in methods:
        with pytest.raises(AttributionError, match="failing of linear was left out: this network is too deep"):
            attributions(given, explained, np.arange(2), asked, lambda maps: maps)
        return
    found, failed = attributions(given, explained, np.arange(2), asked, lambda maps: maps)
    assert [maps.name for maps in found] == ["random", "gradient"]
    assert failed == ["failing of linear was left out: this network is too deep for it."]
    assert found[1].values.shape == (2, 16, 16)


def test_each_image_has_random_maps_of_its_own(tmp_path: Path) -> None:
    given = setting(tmp_path)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    network = Network("linear", module, (0, 1, 2), "0" * 64, "a linear network", False)

    def drawn(request: Request) -> Tensor:
        return torch.rand(len(request.inputs), 16, 16)

    def maps(image_ids: list[int], seed: int) -> np.ndarray:
        explained = Explained(network, np.zeros(len(image_ids), np.int64), np.ones(len(image_ids)))
        methods = [Method("drawn", "drawn", "test", drawn)]
        found, _ = attributions(replace(given, seed=seed), explained, np.array(image_ids), methods, lambda each: each)
        values: np.ndarray = found[0].values
        return values

    first = maps([0, 1], 5)
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(maps([1], 5)[0], first[1])
    assert not np.array_equal(maps([1], 6)[0], first[1])
