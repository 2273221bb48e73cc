"""Models that are no BagNets: what they must be, where they are from, and what an index of them needs."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import own_models
from bagindex import Index, PatchModel, register_model
from bagindex.compute import find_device
from bagindex.errors import LabelError, SettingsError, WeightsError
from bagindex.geometry import is_whole, padding_colour, patch_box
from bagindex.maps import PictureBytes
from bagindex.models import finding
from bagindex.models.checking import check
from bagindex.models.computing import PatchModelCompute, open_found
from bagindex.models.dense import shifted_evidence
from bagindex.models.finding import find, find_again
from bagindex.observer import BuildObserver
from bagindex.prepare import ModelOptions, open_models
from bagindex.store import COPY, INDEX
from bagindex_schemas.records import Grid, Plugin
from conftest import Result
from sealing import change_record
from test_build import contents


@pytest.fixture(autouse=True)
def _none_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "_registered", {})
    monkeypatch.delenv(finding.SETTING, raising=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures of three classes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(9):
        (folder / own_models.CLASSES[number % 3]).mkdir(exist_ok=True)
        picture = Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8))
        picture.save(folder / own_models.CLASSES[number % 3] / f"{number}.png")
    return folder


def picture() -> PictureBytes:
    """One that is in no index."""
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (64, 52, 3), np.uint8)).save(data, "PNG")
    return PictureBytes("mine.png", data.getvalue())


@pytest.mark.parametrize("make", [own_models.tiny, own_models.padded])
def test_a_model_of_ones_own_is_indexed(pictures: Path, tmp_path: Path, make: finding.Factory) -> None:
    register_model("mine", make)
    index = Index.build(pictures, model="mine", out=tmp_path / "i", device="cpu")
    record = index.model_records()[0]
    assert (record.name, record.architecture, record.feature_size) == ("tiny", "mine", 12)
    assert record.plugin == Plugin(asked="mine")
    assert record.grid == check(make())
    report = index.verify()
    assert report.problems == []
    assert next(each.checked for each in report.checks if "alone" in each.name) > 0
    # What is stored is what the network makes of the pixels.
    model, grid = make(), record.grid
    model.network.eval()
    pixels = np.array(index.pixels(4))
    mean, std = (np.array(each, np.float32) for each in (model.mean, model.std))
    image = torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = model.linear(model.features(image).permute(0, 2, 3, 1))[0].permute(2, 0, 1).numpy()
        own = model.network(image)[0].numpy()
    heatmap = index.heatmap(4, classes=[0, 1, 2])
    np.testing.assert_allclose(heatmap.values, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(heatmap.logits, own, atol=1e-5)
    assert {crop.shape for crop in index.top_patches("fish", k=4).crops()} == {(8, 8, 3)}
    # A new picture, at patches and at every pixel.
    found, dense = index.heatmap(picture(), classes=[1]), index.heatmap(picture(), classes=[1], dense=True)
    assert index.explain(picture()).grid == grid
    for row, col in np.ndindex(grid.rows, grid.cols):
        if is_whole(grid, row, col):
            x0, y0, _, _ = patch_box(grid, row, col)
            assert dense.values[0, y0 + 3, x0 + 3] == pytest.approx(found.values[0, row, col], abs=2e-3)


def test_dense_evidence_is_that_of_each_patch_alone() -> None:
    model = own_models.padded()
    grid = check(model)
    pixels = np.random.default_rng(3).integers(0, 256, (13, 18, 3), np.uint8)
    dense = shifted_evidence(model, model.transform, pixels, [2, 0], find_device("cpu"))
    assert dense.shape == (2, 13, 18)
    mean, std = (np.array(each, np.float32) for each in (model.mean, model.std))
    padded = np.pad((pixels.astype(np.float32) / 255 - mean) / std, ((7, 8), (7, 8), (0, 0)))
    for y, x in np.ndindex(13, 18):
        # The cell (1, 1) begins at pixel 2 of an input: no padding is in it.
        canvas = np.zeros((1, 3, 16, 16), np.float32)
        canvas[0, :, 2:10, 2:10] = padded[y + 4 : y + 12, x + 4 : x + 12].transpose(2, 0, 1)
        with torch.inference_mode():
            logits = model.linear(model.features(torch.from_numpy(canvas))[0, :, 1, 1])
        np.testing.assert_allclose(dense[:, y, x], logits[[2, 0]].numpy(), atol=1e-5)
    assert grid.offset == -2


NOT_WHAT_IT_SAYS = {
    "other patches": (own_models.Network, {"receptive_field": 7}, "changes by .* when pixels outside its box"),
    "another stride": (own_models.Network, {"stride": 3}, "when pixels outside its box"),
    "another offset": (own_models.Network, {"offset": 1}, "when pixels outside its box"),
    "too far": (own_models.Network, {"stride": 40}, "the last of which would lie beyond the input"),
    "all of the image": (own_models.Gated, {}, r"feature of patch \(row 4, col 5\) changes"),
    "chance": (own_models.Drawing, {}, "other features when it is run again"),
    "the batch": (own_models.Batched, {}, "other features beside another in its batch"),
    "nothing finite": (own_models.Infinite, {}, "features that are not finite"),
    "nothing": (own_models.Blind, {}, "the same features whatever they show"),
    "another mean": (own_models.Squashed, {}, "its own logits differ from the mean of its patches'"),
    "channels last": (own_models.Last, {}, r"features should be \[1, 12, ·, ·\], and are \[1, 9, 10, 12\]"),
    "no tensor": (own_models.Listed, {}, "should be a tensor .*, not list"),
    "no such input": (own_models.Narrow, {}, "cannot be run on an input of 44 x 40 pixels"),
    "no bias": (own_models.Unbiased, {}, "needs `fc`, an nn.Linear layer with a bias"),
    "no features": (torch.nn.Identity, {}, "needs `features`"),
    "nothing in it": (own_models.Network, {"crop": 7}, "cannot be run on an input of 7 x 7"),
}


@pytest.mark.parametrize("what", NOT_WHAT_IT_SAYS)
def test_a_model_that_is_not_what_it_says_is_refused(what: str) -> None:
    network, changed, message = NOT_WHAT_IT_SAYS[what]
    with pytest.raises(SettingsError, match=message):
        check(own_models.model(network(), **changed))


def test_a_larger_box_than_is_seen_is_no_lie() -> None:
    check(own_models.model(receptive_field=9))


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("images", {}, "cannot be called 'images'"),
        ("bagnet33", {}, "cannot be called 'bagnet33'"),
        ("A B", {}, "small letters, digits"),
        ("mine", {"stride": 0}, "receptive_field and stride are numbers of pixels"),
        ("mine", {"offset": -8}, "its first patch sees no pixel"),
        ("mine", {"crop": 5000}, "say no input"),
    ],
)
def test_a_model_that_cannot_be_is_refused(name: str, changed: dict[str, int], message: str) -> None:
    given = {"receptive_field": 8, "stride": 4, **changed}
    with pytest.raises(SettingsError, match=message):
        PatchModel(name, own_models.Network(), **given)


def test_a_bagnets_name_is_its_own() -> None:
    with pytest.raises(SettingsError, match="cannot be registered as 'bagnet33'"):
        register_model("bagnet33", own_models.tiny)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder where a package is installed that has a model for bagindex."""
    folder = tmp_path / "site"
    about = folder / "tiny_bags-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-bags\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[bagindex.models]\ntiny-bag = tiny_bags:make\nbroken = tiny_bags:none\n")
    (folder / "tiny_bags.py").write_text("from own_models import tiny as make\n")
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("tiny_bags", None)


def test_a_package_that_is_installed_brings_a_model(
    run, pictures: Path, tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "i"
    built: Result = run("build", pictures, "--model", "tiny-bag", "--out", out, "--device", "cpu")
    assert built.status == 0
    written = json.loads((out / "index.json").read_text())["models"]["tiny"]
    assert written["plugin"] == {"asked": "tiny-bag", "package": "tiny-bags", "version": "1.2"}
    assert "run by     tiny-bag (tiny-bags 1.2)\n" in run("info", "-i", out).out
    planned = run("plan", pictures, "--model", "tiny-bag", "--format", "json")
    assert {each["model"] for each in json.loads(planned.out)["costs"]} == {"tiny"}
    (tmp_path / "mine.png").write_bytes(picture().data)
    assert run("explain", tmp_path / "mine.png", "-i", out).status == 0
    # Without the package, what is stored is answered, and what must be computed is not.
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(site)])
    assert run("top-patches", "fish", "-i", out).status == 0
    refused = run("explain", tmp_path / "mine.png", "-i", out)
    assert refused.status == 1
    assert "install tiny-bags 1.2; what the index has stored needs nothing of it" in refused.err
    missing = run("build", pictures, "--model", "tiny-bag", "--out", tmp_path / "j")
    assert missing.status == 1
    assert "there is no model 'tiny-bag': choose from bagnet9, bagnet17, bagnet33" in missing.err


def test_a_package_that_has_no_model_is_said(site: Path) -> None:
    with pytest.raises(SettingsError, match="broken cannot be loaded: AttributeError"):
        find("broken")
    with pytest.raises(SettingsError, match=r"there is no model 'nothing': choose from .*, broken, tiny-bag;"):
        find("nothing")
    with pytest.raises(SettingsError, match=r"there is no model 'tinybag': did you mean 'tiny-bag'\?"):
        find("tinybag")
    with pytest.raises(SettingsError, match=r"there is no model 'bagnet32': did you mean .*'bagnet33' or"):
        find("bagnet32")


def test_a_function_of_a_module_makes_a_model(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.build(pictures, model="own_models:tiny", out=tmp_path / "i", device="cpu")
    plugin = index.model_records()[0].plugin
    assert plugin == Plugin(asked="own_models:tiny", package="own_models")
    with pytest.raises(SettingsError, match="set BAGINDEX_MODELS=own_models:tiny if you trust it"):
        index.heatmap(picture())
    assert index.heatmap(3).values.shape[1:] == (9, 10)
    monkeypatch.setenv("BAGINDEX_MODELS", "another:one, own_models:tiny")
    assert index.heatmap(picture()).values.shape[1:] == (9, 10)


@pytest.mark.parametrize(
    ("asked", "setting", "why"),
    [
        ("own_models:tiny", "", "set BAGINDEX_MODELS=own_models:tiny if you trust it"),
        ("gone_models:make", "gone_models:make", "gone_models:make cannot be loaded: ModuleNotFoundError"),
        ("own_models:Network", "own_models:Network", "should make a bagindex.PatchModel"),
        ("own_models:other_patches", "own_models:other_patches", "makes a model of other patches than"),
        ("own_models:spoilt", "own_models:spoilt", "tiny was not run again: AttributeError: no such layer"),
    ],
)
def test_a_model_that_cannot_be_run_here_is_no_damage(
    run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, setting: str, why: str
) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "i"
    Index.build(pictures, model="own_models:tiny", out=out, device="cpu").close()
    change_record(out / INDEX, lambda record: record["models"]["tiny"]["plugin"].update(asked=asked))
    shutil.copy(out / INDEX, out / COPY)
    monkeypatch.setenv("BAGINDEX_MODELS", setting)
    before = contents(out)
    verified = run("verify", "-i", out)
    assert verified.status == 0, verified.out
    assert verified.out.count("tiny was not run again: ") == 1
    assert why in verified.out
    assert verified.out.endswith(": sound\n")
    with Index.open(out) as index:
        checks = {check.name[:2]: check.status for check in index.verify().checks}
    assert (checks["2."], checks["4."]) == ("ok", "skipped")
    assert run("repair", "-i", out, "--yes").status == 0
    assert contents(out) == before


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("own_models:failing", "own_models:failing fails to make its model: OSError: no such network drive"),
        ("own_models:NOT_A_MODEL", "should be a function that makes"),
        ("own_models:Network", "should make a bagindex.PatchModel, not Network"),
        ("own_models:nothing", "cannot be loaded: AttributeError"),
        ("no_such_module:make", "cannot be loaded: ModuleNotFoundError: .*; set PYTHONPATH"),
        ("../own_models:tiny", "there is no model"),
    ],
)
def test_what_makes_no_model_is_said(asked: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        find(asked).make()


def test_a_strangers_index_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match="set BAGINDEX_MODELS=stranger:make if you trust it"):
        find_again("tiny", Plugin(asked="stranger:make", package="stranger"))
    assert "stranger" not in sys.modules


def test_a_module_of_the_current_folder_is_found_where_a_person_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here_models.py").write_text("from own_models import tiny as make\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "here_models", None)
    del sys.modules["here_models"]  # and again after the test
    before = [each for each in sys.path if each]
    monkeypatch.setattr(sys, "path", [*before])
    monkeypatch.setenv("BAGINDEX_MODELS", "here_models:make")
    # Somebody else's index may lie in the current folder, beside a module of that name.
    with pytest.raises(SettingsError, match="No module named 'here_models'; set PYTHONPATH to the folder that it is"):
        find_again("tiny", Plugin(asked="here_models:make"))
    assert find("here_models:make").make().name == "tiny"
    assert sys.path == before


def test_what_makes_a_model_of_other_patches_now_is_refused(pictures: Path, tmp_path: Path) -> None:
    register_model("mine", own_models.tiny)
    index = Index.build(pictures, model="mine", out=tmp_path / "i", device="cpu")
    register_model("mine", own_models.other_patches)
    with pytest.raises(SettingsError, match=r"mine .* makes a model of other patches than"):
        index.heatmap(picture())
    register_model("mine", lambda: own_models.model(torch.nn.Sequential()))
    with pytest.raises(SettingsError, match="needs `fc`"):
        index.heatmap(picture())


def test_an_index_is_run_by_its_own_weights(pictures: Path, tmp_path: Path) -> None:
    first = own_models.tiny()
    register_model("mine", first)
    index = Index.build(pictures, model="mine", out=tmp_path / "i", device="cpu")
    before = index.heatmap(picture(), classes=[0]).values
    with torch.no_grad():
        first.network.fc.weight.mul_(2)  # type: ignore[union-attr, operator]
    index.close()
    with Index.open(tmp_path / "i") as again:
        np.testing.assert_array_equal(again.heatmap(picture(), classes=[0]).values, before)
    with pytest.raises(SettingsError, match="tiny had other weights"):
        Index.build(pictures, model="mine", out=tmp_path / "i", device="cpu")


def opened(*names: str, weights: tuple[Path, ...] = (), classes: Path | None = None) -> list[PatchModelCompute]:
    options = ModelOptions(device="cpu", classes=None if classes is None else str(classes))
    return open_models(names, [str(each) for each in weights], options, BuildObserver())  # type: ignore[return-value]


def test_weights_of_a_file_take_the_place_of_its_own(tmp_path: Path) -> None:
    torch.manual_seed(8)
    state = own_models.Network().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    (compute,) = opened("own_models:tiny", weights=(tmp_path / "w.safetensors",))
    (own,) = opened("own_models:tiny")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 44, 3), np.uint8)
    assert np.abs(compute.run(pixels).features - own.run(pixels).features).max() > 0.01
    assert [each.name for each in compute.classes] == list(own_models.CLASSES)
    assert compute.weights_sha256 != own.weights_sha256 == opened("own_models:tiny")[0].weights_sha256
    save_file({**state, "other": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"w.safetensors: these weights are no tiny: other has no place in it"):
        opened("own_models:tiny", weights=(tmp_path / "w.safetensors",))


def test_weights_of_a_file_may_have_other_classes(tmp_path: Path) -> None:
    torch.manual_seed(8)
    save_file(own_models.Network(5).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(LabelError, match="tiny does not name its 5 classes: give --classes"):
        opened("own_models:tiny", weights=(tmp_path / "w.safetensors",))
    save_file(own_models.Network(5).state_dict(), tmp_path / "v.safetensors", {"classes": json.dumps(list("abcde"))})
    (compute,) = opened("own_models:tiny", weights=(tmp_path / "v.safetensors",))
    assert [each.name for each in compute.classes] == list("abcde")
    assert compute.run(np.zeros((1, 40, 44, 3), np.uint8)).evidence.shape == (1, 90, 5)


def test_a_model_of_ones_own_beside_a_bagnet(pictures: Path, tmp_path: Path) -> None:
    from bagindex.registry import ARCHITECTURES
    from bagindex.weights import pack
    from test_model import procedural_model

    state = procedural_model("bagnet9", 3, 0.0625).state_dict()
    weights = tmp_path / "bagnet9.safetensors"
    weights.write_bytes(pack(state, ARCHITECTURES["bagnet9"], own_models.CLASSES, own_models.tiny().transform))
    index = Index.build(
        pictures, model=["own_models:tiny", "bagnet9"], weights=weights, out=tmp_path / "i", device="cpu"
    )
    assert {each.name: each.plugin is None for each in index.model_records()} == {"tiny": False, "bagnet9": True}
    with pytest.raises(SettingsError, match="2 models and 3 weights"):
        opened("own_models:tiny", "bagnet9", weights=(weights, weights, weights))


def test_another_process_gets_the_same_model() -> None:
    (compute,) = opened("own_models:padded")
    again = pickle.loads(pickle.dumps(compute))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 44, 3), np.uint8)
    np.testing.assert_array_equal(again.run(pixels).features, compute.run(pixels).features)
    assert (again.weights_sha256, again.plugin, again.grid) == (compute.weights_sha256, compute.plugin, compute.grid)
    assert again.grid == Grid(
        receptive_field=8,
        stride=4,
        rows=10,
        cols=11,
        offset=-2,
        padding={"height": 40, "width": 44, "colour": padding_colour(compute.transform.mean)},
    )


def test_a_precision_that_a_network_cannot_have_is_said() -> None:
    class Stubborn(own_models.Network):
        def features(self, x: torch.Tensor) -> torch.Tensor:
            return super().features(x.float())

    found = finding.Found(Plugin(asked="x"), lambda: own_models.model(Stubborn()), lambda: own_models.model(Stubborn()))

    def choose(model: PatchModel):  # type: ignore[no-untyped-def]
        return (), model.transform

    compute = open_found(found, None, choose, find_device("cpu"), None, "cpu")
    with pytest.raises(SettingsError, match=r"tiny cannot be run in bf16: .*; give --precision fp32"):
        compute.at("bf16").run(np.zeros((1, 40, 44, 3), np.uint8))
    assert compute.candidates == ()


def test_what_a_model_of_ones_own_is_made_of(run, pictures: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shown = run("model", "own_models:tiny", "--size", "40", "--format", "json")
    assert shown.status == 0, shown.err
    layers = json.loads(shown.out)
    assert [(each["name"], each["field"], each["step"]) for each in layers[:2]] == [
        ("body.0", 4, 4),
        ("body.3", 8, 4),
    ]
    register_model("mine", own_models.padded)
    index = Index.build(pictures, model="mine", out=tmp_path / "i", device="cpu")
    (outcome,) = index.reproduce("architecture", tmp_path / "out", device="cpu").outcomes
    beyond = next(each for each in outcome.beside if "beyond its box" in each.quantity)
    assert beyond.ours is not None
    assert beyond.ours < 1e-5
