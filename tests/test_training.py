"""Training, on pictures that a narrow BagNet-9 learns in seconds."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from bagindex import Index
from bagindex.errors import BagindexError, LabelError, SettingsError, SourceError, TrainingError, WeightsError
from bagindex.images import read_picture
from bagindex.observer import TrainingObserver
from bagindex.training import TrainingReport, loop, train
from bagindex.training.pictures import Draw, RandomCrops, Shuffle, open_data, training_batches
from bagindex.training.prepare import choose_model, prepare
from bagindex.training.recipe import RECIPES, input_size, learning_rate, make_recipe, transform_at
from bagindex.weights import read_checkpoint
from bagindex_schemas.records import Transform
from replicas import Item, as_parquet, as_splits, items

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
QUICK: dict[str, Any] = {"model": "bagnet9", "width": 0.25, "workers": 0, "device": "cpu"}
SMALL: dict[str, Any] = {"epochs": 4, "crop_size": 32, "first_size": 24, "first_epochs": 2, "batch_size": 8}


def draw_pictures(folder: Path, splits: dict[str, int], colours: dict[str, tuple[int, int, int]] = COLOURS) -> Path:
    """Noise around a colour; so many pictures of each class in each split."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for name, colour in colours.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(colour, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("photos"), {"train": 12, "val": 5})


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingReport:
    """A training that nothing interrupted. Not to be changed."""
    return train(photos, tmp_path_factory.mktemp("whole") / "w.safetensors", **QUICK, **SMALL)


class Stop(TrainingObserver):
    """Interrupts a training at a step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def stepped(self, epoch: int, step: int, loss: float) -> None:
        if (epoch, step) == self.at:
            raise KeyboardInterrupt


def test_it_learns_and_build_takes_the_result(photos: Path, tmp_path: Path) -> None:
    report = train(
        photos, tmp_path / "w.safetensors", **QUICK, **{**SMALL, "epochs": 12, "first_epochs": 6, "batch_size": 4}
    )
    kept = report.training
    assert kept.validation_top1 >= 0.9
    assert (kept.train_images, kept.validation_images, kept.initial_sha256) == (36, 15, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.csv", "w.safetensors"]
    checkpoint = read_checkpoint(report.weights)
    assert [record.name for record in checkpoint.classes or ()] == sorted(COLOURS)
    assert checkpoint.transform == Transform(resize=37, crop_height=32, crop_width=32)
    assert checkpoint.training == kept
    # An index of the validation pictures has exactly the accuracy that the metadata states.
    with Index.build(photos / "val", weights=report.weights, out=tmp_path / "index") as index:
        rows = index.sql("SELECT avg(correct::INTEGER) AS top1 FROM predictions").to_dicts()
        assert rows[0]["top1"] == kept.validation_top1
        stored = read_checkpoint(index.path / "bagnet9" / "model.safetensors")
    assert stored.training == kept


def test_log_has_every_epoch(whole: TrainingReport) -> None:
    rows = list(csv.DictReader(whole.log.read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [int(row["input_size"]) for row in rows] == [24, 24, 32, 32]
    assert {float(row[name]) <= 1 for row in rows for name in row if "top" in name} == {True}
    last = [float(row["validation_top1"]) for row in rows[2:]]  # only epochs with the full input are candidates
    assert whole.training.validation_top1 == max(last)
    assert whole.training.epoch == 3 + last.index(max(last))


def test_validation_figures_by_hand(photos: Path, whole: TrainingReport) -> None:
    checkpoint = read_checkpoint(whole.weights)
    assert checkpoint.transform is not None
    model, logits, labels = checkpoint.build(), [], []
    for place, name in enumerate(sorted(COLOURS)):
        for file in sorted((photos / "val" / name).iterdir()):
            pixels = read_picture(file.read_bytes(), checkpoint.transform).pixels
            x = (torch.from_numpy(pixels).double() / 255 - torch.tensor(checkpoint.transform.mean)) / torch.tensor(
                checkpoint.transform.std
            )
            with torch.no_grad():
                logits.append(model(x.permute(2, 0, 1)[None].float()))
            labels.append(place)
    outputs, wanted = torch.cat(logits), torch.tensor(labels)
    assert whole.training.validation_loss == pytest.approx(float(cross_entropy(outputs, wanted)), rel=1e-5)
    assert whole.training.validation_top1 == pytest.approx(float((outputs.argmax(1) == wanted).double().mean()))
    assert whole.training.validation_top5 == 1.0  # of three classes


@pytest.mark.parametrize("step", [1, 3])
def test_interrupted_training_ends_as_if_it_had_not_been(
    photos: Path, whole: TrainingReport, tmp_path: Path, step: int
) -> None:
    target = tmp_path / "cut.safetensors"
    for epoch in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            train(photos, target, **QUICK, **SMALL, observer=Stop(epoch, step))
        assert (tmp_path / "cut.training").exists() == (epoch > 1)
    cut = train(photos, target, **QUICK, **SMALL)
    assert not (tmp_path / "cut.training").exists()
    assert cut.weights.read_bytes() == whole.weights.read_bytes()
    figures = [(r.train_loss, r.validation_loss, r.validation_top1) for r in cut.epochs]
    assert figures == [(r.train_loss, r.validation_loss, r.validation_top1) for r in whole.epochs]


def test_workers_do_not_change_what_the_model_sees(photos: Path) -> None:
    recipe = make_recipe("default", {**SMALL, "epochs": 3})
    data = open_data(photos)
    seen = []
    for workers in (0, 2):
        shuffle = Shuffle(len(data.train.entries), recipe, 1)
        seen.append(list(training_batches(data, recipe, shuffle, workers)))
    assert len(seen[0]) == len(seen[1]) == 8
    assert all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(*seen, strict=True))


def test_processes_share_each_batch() -> None:
    recipe = make_recipe("default", {"batch_size": 6, "epochs": 2})
    alone = list(Shuffle(20, recipe, 0))
    parts = [list(Shuffle(20, recipe, 0, rank, 2)) for rank in range(2)]
    assert len(alone) == 6
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(batch) for batch in alone]
    for epoch in (0, 1):
        places = [draw.place for batch in alone for draw in batch if draw.epoch == epoch]
        assert len(set(places)) == 18
    assert [d.place for d in alone[0]] != [d.place for d in alone[3]]
    assert [len(batch) for batch in Shuffle(5, recipe, 0)] == [5, 5]


def test_crops(photos: Path) -> None:
    data = open_data(photos)
    recipe = make_recipe("default", {**SMALL, "min_scale": 0.5, "flip": False})
    crops = RandomCrops(data, recipe)
    first, again, other = crops[Draw(2, 5)], crops[Draw(2, 5)], crops[Draw(3, 5)]
    assert isinstance(first, tuple)
    assert isinstance(again, tuple)
    assert isinstance(other, tuple)
    assert (tuple(first[0].shape), first[0].dtype, first[1]) == ((3, 32, 32), torch.uint8, 0)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    state = torch.random.get_rng_state()
    crops[Draw(0, 0)]
    assert torch.equal(state, torch.random.get_rng_state())


def test_begins_with_a_checkpoint(photos: Path, whole: TrainingReport, tmp_path: Path) -> None:
    quick = {key: value for key, value in QUICK.items() if key not in ("model", "width")}
    settings = {**SMALL, "epochs": 1, "first_epochs": 0, "learning_rate": 1e-9}
    again = train(photos, tmp_path / "b.safetensors", initial=whole.weights, freeze_features=True, **settings, **quick)
    assert again.training.initial_sha256 == read_checkpoint(whole.weights).sha256
    before, after = read_checkpoint(whole.weights).state, read_checkpoint(again.weights).state
    assert all(torch.equal(before[key], after[key]) for key in before if not key.startswith("fc."))
    assert torch.allclose(before["fc.weight"], after["fc.weight"], atol=1e-6)
    # Other classes: the features stay, the linear layer is new.
    others = draw_pictures(
        tmp_path / "others", {"train": 4, "validation": 2}, {"cyan": (0, 200, 200), "pink": (250, 150, 180)}
    )
    moved = train(others, tmp_path / "c.safetensors", initial=whole.weights, freeze_features=True, **settings, **quick)
    state = read_checkpoint(moved.weights).state
    assert tuple(state["fc.weight"].shape) == (2, before["fc.weight"].shape[1])
    assert all(torch.equal(before[key], state[key]) for key in before if not key.startswith("fc."))


def test_bfloat16_trains_and_validates_in_float32(photos: Path, tmp_path: Path) -> None:
    report = train(photos, tmp_path / "w.safetensors", **QUICK, **SMALL, precision="bf16")
    assert {tensor.dtype for key, tensor in read_checkpoint(report.weights).state.items() if "num_" not in key} == {
        torch.float32
    }
    index = Index.build(photos / "val", weights=report.weights, out=tmp_path / "index", keep="summary")
    rows = index.sql("SELECT avg(correct::INTEGER) AS top1 FROM predictions").to_dicts()
    assert rows[0]["top1"] == report.training.validation_top1


def test_stored_in_half(photos: Path, tmp_path: Path) -> None:
    report = train(photos, tmp_path / "w.safetensors", **QUICK, **SMALL, storage="fp16")
    checkpoint = read_checkpoint(report.weights)
    assert {t.dtype for key, t in checkpoint.state.items() if "num_" not in key} == {torch.float16}
    # The accuracy is that of the rounded weights.
    index = Index.build(photos / "val", weights=report.weights, out=tmp_path / "index", keep="summary")
    rows = index.sql("SELECT avg(correct::INTEGER) AS top1 FROM predictions").to_dicts()
    assert rows[0]["top1"] == report.training.validation_top1


def test_unreadable_pictures_are_left_out(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    for split in ("train", "val"):
        (tmp_path / "photos" / split / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    said: list[str] = []

    class Notes(TrainingObserver):
        def note(self, text: str) -> None:
            said.append(text)

    settings = {**SMALL, "batch_size": 37, "epochs": 1, "first_epochs": 0}
    report = train(tmp_path / "photos", tmp_path / "w.safetensors", **QUICK, **settings, observer=Notes())
    assert any("red/broken.png (damaged)" in text for text in said)
    assert (len(said), report.training.validation_images) == (2, 15)


def test_a_loss_that_is_not_finite_stops_it(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "w.safetensors"
    calls = []

    def poisoned(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
        calls.append(1)
        return cross_entropy(logits, labels, **options) * (float("nan") if len(calls) == 7 else 1)

    monkeypatch.setattr(loop, "cross_entropy", poisoned)
    with pytest.raises(TrainingError, match=r"not finite in epoch 2, step 3: .*--learning-rate below 0\.002"):
        train(photos, target, **QUICK, **SMALL)
    assert (tmp_path / "w.training").exists()
    assert read_checkpoint(target).training is not None  # the epoch before


def test_the_same_command_again(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "w.safetensors"
    settings = {**QUICK, **SMALL, "epochs": 1, "first_epochs": 0}
    first = train(photos, target, **settings)
    data = target.read_bytes()
    again = train(photos, target, **settings)
    assert (again.epochs, again.training, target.read_bytes()) == ((), first.training, data)
    with pytest.raises(SettingsError, match="there already"):
        train(photos, target, **{**settings, "epochs": 2})
    assert target.read_bytes() == data
    assert len(train(photos, target, **{**settings, "epochs": 2}, restart=True).epochs) == 2


def test_other_settings_do_not_resume(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "w.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(photos, target, **QUICK, **SMALL, observer=Stop(2, 1))
    with pytest.raises(SettingsError, match=r"--epochs 4, --seed 0.*--restart"):
        train(photos, target, **QUICK, **{**SMALL, "epochs": 5, "seed": 1})
    state = tmp_path / "w.training"
    whole = state.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:-100], bytes(flipped), b""):
        state.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"damaged: begin anew with --restart"):
            train(photos, target, **QUICK, **SMALL)
    state.unlink()
    with pytest.raises(SettingsError, match=r"of 1 of 4 epochs, and w\.training, .* is gone: give --restart"):
        train(photos, target, **QUICK, **SMALL)
    assert len(train(photos, target, **QUICK, **SMALL, restart=True).epochs) == 4


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "bagnet12"}, SettingsError, "no model 'bagnet12': did you mean .*'bagnet17' or"),
        ({"model": None}, SettingsError, "which model"),
        ({"width": 0.3}, SettingsError, "multiple of 1/64"),
        ({"recipe": "secret"}, SettingsError, "--recipe is one of"),
        ({"epochs": 0}, SettingsError, "--epochs 0"),
        ({"optimizer": "lion"}, SettingsError, "--optimizer lion"),
        ({"learning_rate": float("nan")}, SettingsError, "--learning-rate"),
        ({"crop_size": 20, "first_size": 30}, SettingsError, "--first-size"),
        ({"first_epochs": 1, "first_size": 32}, SettingsError, "needs a --first-size"),
        ({"first_epochs": 9}, SettingsError, "--first-epochs 9 leaves none"),
        ({"model": "bagnet33", "first_size": 24}, SettingsError, "smaller than a patch"),
        ({"freeze_features": True}, SettingsError, "give --from"),
        ({"precision": "fp16"}, SettingsError, "needs a GPU"),
        ({"precision": "fp8"}, SettingsError, "--precision fp8"),
        ({"devices": 0}, SettingsError, "--devices"),
        ({"devices": 9}, SettingsError, "cannot share a step of 8 pictures"),
        ({"device": "tpu"}, SettingsError, "--device"),
        ({"output": "w.pth"}, SettingsError, "safetensors"),
        ({"output": "no/such/w.safetensors"}, SettingsError, "cannot write"),
        ({"data": "nowhere"}, SourceError, "is no folder"),
        ({"data": "."}, SourceError, "should hold train/ and val/"),
        ({"initial": "nothing.safetensors"}, WeightsError, "no weights at"),
    ],
)
def test_what_cannot_be(
    photos: Path, tmp_path: Path, changes: dict[str, Any], error: type[BagindexError], message: str
) -> None:
    wanted = {"data": photos, "output": "w.safetensors", **QUICK, **SMALL, **changes}
    data, output = (tmp_path / wanted.pop(name) for name in ("data", "output"))
    with pytest.raises(error, match=message):
        train(data, output, **wanted)
    assert not list(tmp_path.iterdir())


def test_files_of_others_are_left_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("path,label\n")
    with pytest.raises(SettingsError, match=r"w\.csv, where the log would go, is something else"):
        train(photos, tmp_path / "w.safetensors", **QUICK, **SMALL, restart=True)
    (tmp_path / "v.safetensors").write_text("a diary")
    with pytest.raises(SettingsError, match="there already"):
        train(photos, tmp_path / "v.safetensors", **QUICK, **SMALL)
    (tmp_path / "u.safetensors").mkdir()
    with pytest.raises(SettingsError, match="is a folder"):
        train(photos, tmp_path / "u.safetensors", **QUICK, **SMALL)
    with pytest.raises(SettingsError, match="are one file"):
        train(photos, tmp_path / "v.safetensors", initial=tmp_path / "v.safetensors", restart=True)
    assert (tmp_path / "w.csv").read_text() == "path,label\n"
    assert (tmp_path / "v.safetensors").read_text() == "a diary"


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    one = draw_pictures(tmp_path / "one", {"train": 1, "val": 1}, {"red": (200, 0, 0)})
    with pytest.raises(LabelError, match="one class"):
        open_data(one)
    two = draw_pictures(tmp_path / "two", {"train": 1, "val": 1})
    (two / "val" / "red").rename(two / "val" / "rde")
    with pytest.raises(LabelError, match="classes that train/ has no pictures of: 'rde'"):
        open_data(two)
    (two / "validation").mkdir()
    with pytest.raises(SourceError, match="more than one"):
        open_data(two)


@pytest.mark.parametrize("pack", [as_parquet, as_splits])
def test_a_data_set_in_files_is_what_it_is_in_folders(
    tmp_path: Path, pack: Callable[[Path, Sequence[Item], str], Path]
) -> None:
    for split, count in (("train", 6), ("validation", 4)):
        pack(tmp_path / "set", items(count), split)
    data = open_data(tmp_path / "set")
    assert (data.name, data.classes) == ("set", ("apple", "bear"))
    assert [data.label(entry) for entry in data.train.entries] == [0, 1] * 3
    assert [data.validation.read(entry) for entry in data.validation.entries] == [item.data for item in items(4)]
    crops = RandomCrops(data, RECIPES["default"])
    assert [crops[Draw(0, place)][1] for place in range(6)] == [0, 1] * 3
    shutil.rmtree(tmp_path / "set")
    pack(tmp_path / "set", items(6), "train")
    with pytest.raises(SourceError, match="should hold the splits train and validation: it has 'train'"):
        open_data(tmp_path / "set")


def test_recipes() -> None:
    paper = RECIPES["paper"]
    assert (paper.optimizer, paper.momentum, paper.batch_size, paper.weight_decay) == ("sgd", 0.9, 256, 1e-4)
    assert [learning_rate(paper, epoch) for epoch in (0, 29.99, 30, 60)] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4])
    assert {input_size(paper, epoch) for epoch in range(90)} == {224}
    assert transform_at(paper, 0) == Transform(resize=256, crop_height=224, crop_width=224)
    default = make_recipe("default", {"epochs": 20})
    assert (default.first_epochs, input_size(default, 14), input_size(default, 15)) == (15, 128, 224)
    assert learning_rate(default, 0.5) == pytest.approx(default.learning_rate / 2)
    assert learning_rate(default, 10.5) == pytest.approx(default.learning_rate / 2)
    assert learning_rate(default, 20) == pytest.approx(0)
    assert make_recipe("default", {"crop_size": 96}).first_epochs == 0


def test_initialisation_and_momentum(photos: Path, tmp_path: Path) -> None:
    """Convolutions as the authors initialise them, variance 2 / (k² · outputs); batch norms with torch's momentum, for
    with the authors' 0.001 the running statistics of a short training stay far behind.
    """
    recipe = make_recipe("default", {"crop_size": 64})
    chosen = choose_model("bagnet33", 0.5, None, recipe)
    model = loop.make_model(prepare(photos, tmp_path / "w.safetensors", recipe, chosen, 0, False, TrainingObserver()))
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            expected = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx(expected, rel=0.25), name
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.momentum == 0.1


def test_two_processes(photos: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 2, "first_epochs": 0}
    report = train(photos, tmp_path / "w.safetensors", **QUICK, **settings, devices=2)
    assert [record.epoch for record in report.epochs] == [1, 2]
    assert report.training == read_checkpoint(report.weights).training
    # An error comes back as what it is.
    bad = draw_pictures(tmp_path / "bad", {"train": 4, "val": 1})
    for file in (bad / "train").rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(SourceError, match="none of the pictures of a step could be read"):
        train(bad, tmp_path / "v.safetensors", **QUICK, **settings, devices=2)


def test_metadata_is_json(photos: Path, tmp_path: Path) -> None:
    report = train(photos, tmp_path / "w.safetensors", **QUICK, **{**SMALL, "epochs": 1, "first_epochs": 0})
    data = report.weights.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    training = json.loads(header["training"])
    assert training["recipe"]["crop_size"] == 32
    assert training["validation_top1"] == report.training.validation_top1
    assert json.loads(header["classes"]) == sorted(COLOURS)
