"""The benchmark for attribution methods: answers that are known, and runs that are stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bagindex import Index
from bagindex.attribution.methods import find
from bagindex.errors import AttributionError, UnknownClassError
from bagindex.evaluation import evaluating, running
from bagindex.evaluation.evaluating import Answer, Attributed, Question, Truths
from bagindex.evaluation.results import EVIDENCE, MIDDLES, OTHER, SCORES, score
from bagindex.evaluation.truth import Truth, boxes, cells, contributions
from bagindex.geometry import make_grid
from bagindex.model import BagNet
from bagindex.models.bags import Folded
from bagindex_schemas.records import Grid
from test_model import procedural, procedural_model

OWN = """
import os
import torch
def counted(network, inputs, classes, *, baseline, seed):
    with open("calls", "a") as file:
        file.write("x")
    calls = os.path.getsize("calls")
    if os.path.exists("stop") and calls == 3:
        raise KeyboardInterrupt
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(inputs.shape, generator=generator)
"""


class Linear(nn.Module):
    """A linear network of patches that lie beside each other."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, classes, 8, 8)
        self.requires_grad_(False)

    def evidence(self, x: Tensor) -> Tensor:
        return self.conv(x).permute(0, 2, 3, 1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.evidence(x).mean(dim=(1, 2))


def judged(network: nn.Module, grid: Grid, x: Tensor, classes: Tensor, names: list[str]) -> Any:
    """The scores of some methods on a network with known evidence."""
    methods = tuple(map(find, names))
    zeros = torch.zeros_like(x)
    with torch.no_grad():
        evidence, of_baseline = network.evidence(x), network.evidence(zeros)  # type: ignore[operator]
    own, other = (
        Truth(grid, (x.shape[2], x.shape[3]), contributions(evidence, of_baseline, each))
        for each in (classes, 1 - classes)
    )
    attributed = {}
    for method in methods:
        maps = method.attribute(network, x, classes).numpy()
        found = cells(maps, grid).astype(np.float32), boxes(maps, grid).astype(np.float32)
        attributed[method.name] = Attributed(*found, np.zeros(len(x), np.float32))
    known, scored, chance = score(
        Answer(Truths(own, other), attributed, {}), Question(methods, classes.numpy(), "mean")
    )
    return {
        each.name: {name: float(values.mean()) for name, values in each.values.items()} for each in (*known, *scored)
    } | {"chance": chance}


def test_on_a_linear_network_gradient_times_input_is_exact_and_random_numbers_are_chance() -> None:
    x = 4 * (procedural("input", (8, 3, 64, 64)) - 0.5)
    classes = torch.arange(8) % 2
    exact = ["gradient-input", "integrated-gradients(steps=3)", "deeplift", "lrp-epsilon"]
    found = judged(Linear(), make_grid(8, 8, 64, 64), x, classes, [*exact, "random"])
    for name in (EVIDENCE, MIDDLES, "gradient-input", "integrated-gradients(steps=3)", "deeplift"):
        for each in ("rank", "rank_magnitude", "overlap", "pointing", "box_rank", "box_overlap"):
            assert found[name][each] == pytest.approx(1, abs=1e-4), (name, each)
    for each, chance in found["chance"].items():
        assert found["random"][each] == pytest.approx(chance, abs=0.1)


def test_evidence_for_the_other_of_two_classes_is_below_chance() -> None:
    """Of two classes that nothing speaks for but what speaks against the other."""
    model: BagNet = procedural_model("bagnet9", 2, 0.125)
    with torch.no_grad():
        model.fc.weight[1] = -model.fc.weight[0]
    x = 4 * (procedural("input", (3, 3, 73, 73)) - 0.5)
    found = judged(Folded(model), make_grid(9, 8, 73, 73), x, torch.tensor([0, 1, 0]), ["gradient-input"])
    assert all(found[EVIDENCE][each] == pytest.approx(1) for each in SCORES if each != "mass")
    assert found[OTHER]["rank"] == found[OTHER]["box_rank"] == pytest.approx(-1)
    for each in ("overlap", "pointing", "mass", "box_overlap"):
        assert found[OTHER][each] < found["chance"][each]
    assert found[EVIDENCE]["mass"] > found["chance"]["mass"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A method of the user's own, in the folder where the person is."""
    (tmp_path / "counted_method.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "counted_method", raising=False)
    return tmp_path


def test_an_evaluation_of_an_index(planted_index: Index, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    found = planted_index.evaluate_attribution(
        ["random", "gradient-input,gradcam"],
        tmp_path / "out",
        limit=3,
        device="cpu",
        progress=lambda *each: heard.append(each),
    )
    assert [each.name for each in found.scored] == [EVIDENCE, MIDDLES, OTHER, "random", "gradient-input", "gradcam"]
    assert [float(found[EVIDENCE].values[each].mean()) for each in ("rank", "overlap", "pointing", "box_rank")] == [
        1.0
    ] * 4
    rows = {row["method"]: row for row in found.to_dicts()}
    assert rows["gradient-input"]["rank_low"] <= rows["gradient-input"]["rank"] <= rows["gradient-input"]["rank_high"]
    assert rows["gradcam"]["overlap"] > 5 * found.chance["overlap"]
    assert rows["gradcam"]["parameters"] == '{"layer": null}'
    assert rows["random"]["seconds"] > 0
    assert ("gradcam: 3 images", 3, 3) in heard
    names = {path.name for path in found.files}
    assert {"attribution.csv", "attribution-curves.csv", "attribution-images.csv", "attribution.json"} <= names
    for name in ("attribution", "attribution-curves", "attribution-examples"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 1000
    said = json.loads((tmp_path / "out" / "attribution.json").read_text())
    assert said["settings"]["methods"]["gradcam"]["layer"] is None
    assert said["settings"]["seed"] == 0
    assert {"captum", "zennit"} <= set(said["environment"])
    assert "(chance)" in str(found)
    # The truth is that of the stored evidence, to its rounding.
    stored = planted_index.sql(
        "SELECT image_id, row, col, logit FROM evidence JOIN (SELECT image_id, predicted AS class_id FROM predictions) "
        f"USING (image_id, class_id) WHERE image_id IN ({', '.join(map(str, found.image_ids))}) "
        "ORDER BY image_id, row, col"
    ).to_arrow()
    logits = stored["logit"].to_numpy().astype(float).reshape(3, 16, 16)
    shown = Truth(planted_index._model(None).grid, (160, 160), logits / 256)
    apart = cells(shown.maps(), shown.grid) - found[EVIDENCE].cells
    # What the mean colour has, all patches have.
    same = cells(Truth(shown.grid, (160, 160), np.ones((1, 16, 16))).maps(), shown.grid)
    rest = apart - same * (apart * same).sum((1, 2), keepdims=True) / (same**2).sum()
    assert abs(rest).max() < 1e-3 * abs(found[EVIDENCE].cells).max()


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are not drawn, which takes longest."""
    monkeypatch.setattr(running, "write", lambda _setting, _found, _seconds: ())


@pytest.mark.usefixtures("unwritten")
def test_the_class_is_the_predicted_one_or_the_label_or_one_that_is_named(planted_index: Index, tmp_path: Path) -> None:
    rows = planted_index.sql("SELECT label, predicted FROM predictions ORDER BY image_id").to_arrow().to_pylist()
    for class_, expected in {
        "predicted": [row["predicted"] for row in rows],
        "label": [row["label"] for row in rows],
        "fish": [planted_index.find_class("fish").class_id] * len(rows),
    }.items():
        found = planted_index.evaluate_attribution("random", tmp_path / class_, class_=class_, limit=4, device="cpu")
        assert found.classes.tolist() == [expected[image_id] for image_id in found.image_ids]
    with pytest.raises(UnknownClassError):
        planted_index.evaluate_attribution("random", tmp_path / "none", class_="no such", limit=4)


@pytest.mark.usefixtures("unwritten")
def test_a_run_that_was_stopped_goes_on(planted_index: Index, own: Path, run: Any) -> None:
    command = ["evaluate-attribution", "-i", planted_index.path, "--methods", "counted_method:counted", "--limit", 5]
    command += ["--device", "cpu", "--format", "json"]

    def scores(folder: str) -> list[dict[str, Any]]:
        result = run(*command, "-o", own / folder)
        assert result.status == 0
        return [{key: value for key, value in row.items() if key != "seconds"} for row in json.loads(result.out)]

    (own / "stop").touch()
    result = run(*command, "-o", own / "out")
    assert (result.status, result.out) == (130, "")
    assert "bagindex: stopped; finished images are kept, and the same command goes on from there" in result.err
    (own / "stop").unlink()
    found = scores("out")
    assert (own / "calls").stat().st_size == 6  # two, one that was stopped, and three
    assert found == scores("whole")
    assert (own / "calls").stat().st_size == 11


@pytest.mark.usefixtures("unwritten")
def test_what_is_kept_is_of_the_same_question_only(planted_index: Index, own: Path) -> None:
    def calls(**changes: Any) -> int:
        (own / "calls").unlink(missing_ok=True)
        planted_index.evaluate_attribution(
            "counted_method:counted", own / "out", **{"limit": 2, "device": "cpu", **changes}
        )
        return (own / "calls").stat().st_size if (own / "calls").exists() else 0

    assert (calls(), calls()) == (2, 0)
    for changes in ({"seed": 1}, {"baseline": "black"}, {"baseline": "blur"}, {"class_": "fish"}):
        assert calls(**changes) > 0
        assert calls(**changes) == 0
    assert calls() == 0
    for path in (own / "out" / "kept").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    assert (calls(), calls()) == (2, 0)


def test_a_method_that_cannot_do_it_is_left_out_and_said(planted_index: Index, tmp_path: Path) -> None:
    notes: list[str] = []
    found = planted_index.evaluate_attribution(
        "random,captum:Occlusion", tmp_path, limit=1, device="cpu", note=notes.append
    )
    assert list(found.left_out) == ["captum:Occlusion"]
    assert notes[0].startswith("captum:Occlusion is left out: captum:Occlusion failed: TypeError")
    assert "captum:Occlusion was left out" in (tmp_path / "attribution.json").read_text()
    # Where it is the only one, that is said once.
    with pytest.raises(AttributionError, match="captum:Occlusion failed"):
        planted_index.evaluate_attribution("captum:Occlusion", tmp_path, limit=1, device="cpu", note=notes.append)
    assert len(notes) == 1


def test_what_is_asked_wrongly_is_said_before_anything_runs(
    planted_index: Index, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "evaluate", None)
    command = ["evaluate-attribution", "-i", planted_index.path, "-o", tmp_path / "out"]
    for more, said in (
        (["--methods", "nothing"], "there is no attribution method 'nothing': it is one of random, "),
        (["--methods", "salience"], "there is no attribution method 'salience': did you mean 'saliency'?"),
        (["--methods", ","], "say which attribution methods"),
        (["--methods", "random", "--baseline", "grey"], "--baseline is one of mean, black, white, blur, not 'grey'"),
    ):
        result = run(*command, *more)
        assert (result.status, result.out) == (1, "")
        assert said in result.err
    assert run(*command).status == 2
    assert run("evaluate-attribution", "--methods", "random", "-i", planted_index.path).status == 2
    assert not (tmp_path / "out").exists()


def test_the_methods_are_listed(run: Any) -> None:
    result = run("evaluate-attribution", "--list", "--format", "csv")
    assert result.status == 0
    assert result.out.splitlines()[0] == "method,what,from,parameters,installed"
    assert "integrated-gradients" in result.out
