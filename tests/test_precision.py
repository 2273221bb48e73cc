"""A lower precision must show that it gives float32's evidence; a model that is fragile in it is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from bagindex import Index, compute, precision
from bagindex.build import BuildSettings, build
from bagindex.compute import PatchOutput
from bagindex.errors import EvidenceRangeError, SettingsError
from bagindex.evidence import Evidence, reduce
from bagindex.model import BagNet, Bottleneck
from bagindex.observer import BuildObserver
from bagindex.precision import SAMPLE, Tally, choose, feature_errors, parse, shard_sample
from bagindex.store import IndexDirectory
from bagindex.weights import read_checkpoint
from bagindex_schemas.records import Keep, Precision
from fakes import LinearCompute, MemorySource

CLASSES = ["a", "b", "c"]


class Rounding(LinearCompute):
    """Has a bf16 that is as fast as it likes; from image `broken_from` on it gives other evidence."""

    candidates: tuple[Precision, ...] = ("bf16",)
    broken_from = 10**9
    overflow = False

    def at(self, precision: Precision) -> Self:
        """The same, in another precision."""
        if precision not in ("fp32", "bf16"):
            raise SettingsError(f"no {precision}")
        other = copy.copy(self)
        other.environment = self.environment.model_copy(update={"precision": precision})
        return other

    def output(self, pixels: NDArray[np.uint8]) -> PatchOutput:
        """Features with 8 significant bits in bf16."""
        if self.environment.precision == "fp32":
            return super().output(pixels)
        if self.overflow:
            raise EvidenceRangeError("a feature of inf")
        features = torch.from_numpy(super().output(pixels).features).bfloat16().float().numpy()
        numbers = pixels[:, 0, 0, 0].astype(int) + 256 * pixels[:, 0, 0, 1].astype(int)
        features[numbers >= self.broken_from] *= -1
        return PatchOutput(features, features @ self.weight.T + self.bias)


def inputs(count: int) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(5)
    for _ in range(count):
        yield rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)


def decide(compute: LinearCompute, asked: str, images: int = 100_000) -> precision.Choice:
    with compute.pool() as pool:
        return choose(compute, parse(asked), images, inputs, pool)


@pytest.fixture
def twice_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_ratio", lambda _float32, _other: 2.0)


@pytest.mark.usefixtures("twice_as_fast")
def test_one_that_gives_the_same_is_taken() -> None:
    chosen = decide(Rounding(CLASSES), "auto")
    (found,) = chosen.comparisons
    assert chosen.precision == found.precision == "bf16"
    assert found.accepted
    assert (found.images, found.top1_equal, found.speedup, found.shard) == (SAMPLE, SAMPLE, 2.0, None)
    assert found.logit_error is not None
    assert 0 < found.logit_error < 0.01
    assert "512 of 512 predictions" in str(found)


@pytest.mark.usefixtures("twice_as_fast")
def test_one_that_gives_something_else_is_not() -> None:
    compute = Rounding(CLASSES)
    compute.broken_from = 0
    chosen = decide(compute, "auto")
    assert chosen.precision == "fp32"
    assert not chosen.comparisons[0].accepted
    assert "other evidence" in chosen.reason
    asked = decide(compute, "bf16")
    assert (asked.precision, asked.reason) == ("bf16", "as asked")
    assert not asked.comparisons[0].accepted


@pytest.mark.usefixtures("twice_as_fast")
def test_values_beyond_float16_are_no_reason_to_stop() -> None:
    compute = Rounding(CLASSES)
    compute.overflow = True
    chosen = decide(compute, "auto")
    (found,) = chosen.comparisons
    assert (chosen.precision, found.accepted, found.logit_error, found.images) == ("fp32", False, None, SAMPLE)
    assert str(found) == "bf16: values beyond what float16 holds"
    with pytest.raises(EvidenceRangeError, match="feature of inf"):
        decide(compute, "bf16")


def test_nothing_is_compared_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Rounding(CLASSES)
    monkeypatch.setattr(compute, "at", lambda _precision: pytest.fail("compared"))
    assert decide(compute, "fp32").precision == "fp32"
    few = decide(compute, "auto", images=2047)
    assert few == precision.Choice("fp32", "for fewer than 2,048 images a comparison takes longer than it saves")
    compute.candidates = ()
    assert decide(compute, "auto").reason == "nothing is faster on this device"


@pytest.mark.parametrize(("speedup", "taken"), [(2.0, "bf16"), (1.2, "bf16"), (1.05, "fp32"), (0.5, "fp32")])
def test_what_is_not_faster_is_not_taken(speedup: float, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_ratio", lambda _float32, _other: speedup)
    chosen = decide(Rounding(CLASSES), "auto", images=2048)
    assert (chosen.precision, len(chosen.comparisons), chosen.comparisons[0].accepted) == (taken, 1, True)
    assert (chosen.reason == "nothing is faster here") == (taken == "fp32")


def test_what_a_device_is_not_made_for_is_said() -> None:
    compute = Rounding(CLASSES)
    compute.candidates = ()
    assert decide(compute, "bf16").reason == "as asked; nothing here is made for it, which is slow"


def test_what_is_asked_for_is_checked() -> None:
    with pytest.raises(SettingsError, match="auto, fp32, tf32, bf16, fp16, not 'half'"):
        parse("half")
    with pytest.raises(SettingsError, match="no fp16"):
        decide(Rounding(CLASSES), "fp16")


def random_evidence(rng: np.random.Generator, n: int, classes: int, noise: float) -> tuple[Evidence, Evidence]:
    features = rng.normal(0, 1, (n, 6, 5)).astype(np.float32)
    weight = rng.normal(0, 1, (5, classes)).astype(np.float32)
    other = features + rng.normal(0, noise, features.shape).astype(np.float32)
    return reduce(PatchOutput(features, features @ weight)), reduce(PatchOutput(other, other @ weight))


def test_a_tally_counts_as_by_hand() -> None:
    rng = np.random.default_rng(3)
    pairs = [random_evidence(rng, n, 4, 0.3) for n in (3, 1, 9)]
    tally = Tally("bf16")
    for exact, other in pairs:
        part = Tally("bf16")
        part.add(exact, other)
        tally.merge(part)
    found = tally.comparison(patches=6, speedup=1.5)
    exact_logits, logits = (np.concatenate([pair[i].evidence for pair in pairs]).astype(float) for i in (0, 1))
    assert found.images == 13
    assert found.top1_equal == sum(
        int(a.argmax()) == int(b.argmax()) for a, b in zip(exact_logits.mean(1), logits.mean(1), strict=True)
    )
    assert found.logit_error == pytest.approx(
        np.sqrt(((exact_logits - logits) ** 2).sum() / (exact_logits**2).sum()), rel=1e-4
    )
    same = 0
    for class_id in range(4):
        tops = []
        for values in (exact_logits, logits):
            best = sorted(
                (-image[:, class_id].max(), n, int(image[:, class_id].argmax())) for n, image in enumerate(values)
            )
            tops.append({(n, cell) for _, n, cell in best[:7]})
        same += len(tops[0] & tops[1])
    assert found.top_patches_equal == pytest.approx(same / 28)
    worst = 0.0
    for exact, other in pairs:
        for one, two in zip(exact.features.astype(float), other.features.astype(float), strict=True):
            usual = np.mean([np.linalg.norm(patch) for patch in one])
            for a, b in zip(one, two, strict=True):
                worst = max(worst, np.linalg.norm(a - b) / max(np.linalg.norm(a), usual))
    assert found.feature_error == pytest.approx(worst, rel=1e-4)
    assert not found.accepted


def test_features_that_are_nothing() -> None:
    none = np.zeros((1, 2, 3), np.float16)
    assert feature_errors(none, none).tolist() == [[0, 0]]
    assert (feature_errors(none, none + 1) > 1e6).all()


@pytest.mark.parametrize(("count", "few"), [(1, 1), (2, 2), (64, 2), (512, 5), (4096, 16)])
def test_a_shard_s_sample(count: int, few: int) -> None:
    chosen = shard_sample(100, count)
    assert len(set(chosen)) == len(chosen) == few
    assert all(100 <= each < 100 + count for each in chosen)
    assert chosen == shard_sample(100, count)


# Whole builds


class Notes(BuildObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.files = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advanced(self, files: int) -> None:
        self.files += files


LABELS = [CLASSES[i % 3] for i in range(24)]
CLASS_IDS = {name: i for i, name in enumerate(CLASSES)}


def run_build(folder: Path, compute: LinearCompute, notes: Notes | None = None, **settings: Any) -> list[str]:
    """Build 24 images in shards of 4; the precision of each shard."""
    source = MemorySource(LABELS)
    build(IndexDirectory(folder), source, CLASS_IDS, compute, BuildSettings(shard_size=4, **settings), notes)
    found = []
    for path in sorted((folder / "linear").glob("shard-*/shard.json")):
        found.append(json.loads(path.read_text())["environment"]["precision"])
    return found


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch, twice_as_fast: None) -> None:
    monkeypatch.setattr(precision, "SAMPLE", 6)
    monkeypatch.setattr(precision, "_WORTH", 24)


@pytest.mark.usefixtures("small_sample")
def test_a_shard_that_fails_is_done_again_and_what_follows_too(tmp_path: Path) -> None:
    compute = Rounding(CLASSES)
    # The sample over the plan misses the broken ones, as it may with thousands of images.
    compute.broken_from = max(np.random.default_rng(0).choice(24, 6, replace=False)) + 1
    notes = Notes()
    found = run_build(tmp_path / "auto", compute, notes)
    first = found.index("fp32")
    assert found == ["bf16"] * first + ["fp32"] * (6 - first)
    assert 0 < first <= compute.broken_from // 4 + 1
    assert notes.files == 24
    assert any("done again in float32" in note for note in notes.notes)
    record = IndexDirectory(tmp_path / "auto").manifest().models["linear"]
    assert (record.precision, record.precision_asked) == ("fp32", "auto")
    assert [(each.shard, each.accepted) for each in record.comparisons] == [(None, True), (first, False)]
    exact = tmp_path / "exact"
    run_build(exact, Rounding(CLASSES), precision="fp32")
    for shard in range(6):
        same = all(
            (tmp_path / "auto" / "linear" / f"shard-{shard:05d}" / name).read_bytes()
            == (exact / "linear" / f"shard-{shard:05d}" / name).read_bytes()
            for name in ("features.parquet", "evidence.parquet", "predictions.parquet")
        )
        assert same == (shard >= first)


@pytest.mark.usefixtures("small_sample")
def test_a_build_goes_on_in_the_precision_that_was_decided(tmp_path: Path) -> None:
    compute = Rounding(CLASSES)
    assert run_build(tmp_path / "i", compute, keep=Keep.SUMMARY) == ["bf16"] * 6
    manifest = (tmp_path / "i" / "index.json").read_bytes()
    for shard in (1, 4):
        for path in (tmp_path / "i" / "linear" / f"shard-{shard:05d}").iterdir():
            path.unlink()
        (tmp_path / "i" / "linear" / f"shard-{shard:05d}").rmdir()
    assert run_build(tmp_path / "i", compute, keep=Keep.SUMMARY) == ["bf16"] * 6
    assert (tmp_path / "i" / "index.json").read_bytes() == manifest
    with pytest.raises(SettingsError, match="--precision auto then, fp32 now"):
        run_build(tmp_path / "i", compute, keep=Keep.SUMMARY, precision="fp32")


@pytest.mark.usefixtures("small_sample")
def test_a_level_is_filled_in_in_its_shard_s_precision(tmp_path: Path) -> None:
    compute = Rounding(CLASSES)
    compute.broken_from = 20
    before = run_build(tmp_path / "i", compute, keep=Keep.SUMMARY)
    assert set(before) == {"bf16", "fp32"}
    assert run_build(tmp_path / "i", compute, keep=Keep.FEATURES) == before
    filled = sorted((tmp_path / "i" / "linear" / "features").glob("shard-*/shard.json"))
    assert [json.loads(path.read_text())["environment"]["precision"] for path in filled] == before
    with Index.open(tmp_path / "i") as index:
        assert index.verify().ok


def fragile(model: BagNet) -> BagNet:
    """With large activations that cancel, and tiny weights under tiny variances."""
    with torch.no_grad():
        for block in model.modules():
            if isinstance(block, Bottleneck):
                mean, variance, epsilon = statistics(block.bn2)
                shrink = torch.sqrt(1.0001 * epsilon / (variance + epsilon))
                block.conv2.weight *= shrink.view(-1, 1, 1, 1)
                variance.copy_((variance + epsilon) * shrink**2 - epsilon)
                mean *= shrink
        # The residual is lifted in one block and brought down in the next, whose first convolution knows of it.
        lifted, lowered = model.get_submodule("layer2.1"), model.get_submodule("layer2.2")
        lifted.get_parameter("bn3.bias").add_(LIFT)
        lowered.get_parameter("bn3.bias").sub_(LIFT)
        weight = lowered.get_parameter("conv1.weight")
        lowered.get_buffer("bn1.running_mean").add_(LIFT * weight.sum(dim=(1, 2, 3)))
    return model


LIFT = 4000


def statistics(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Running mean and variance of a batch norm, and what is added to the variance."""
    return norm.get_buffer("running_mean"), norm.get_buffer("running_var"), float(norm.eps)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fragile_weights(planted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model, made fragile; what it says in float32 is right."""
    checkpoint = read_checkpoint(planted_folder / "bagnet33.safetensors")
    x = torch.rand((2, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    changed = fragile(checkpoint.build())
    with torch.inference_mode():
        exact = copy.deepcopy(changed).double()(x.double()).float()
        torch.testing.assert_close(changed(x), exact, rtol=0.01, atol=0.01)
    path = tmp_path_factory.mktemp("fragile") / "bagnet33.safetensors"
    with safe_open(str(planted_folder / "bagnet33.safetensors"), framework="pt") as file:
        path.write_bytes(save(changed.state_dict(), file.metadata()))
    return path


@pytest.mark.usefixtures("twice_as_fast")
@pytest.mark.parametrize("sound", [True, False])
def test_auto_refuses_a_model_that_is_fragile(
    sound: bool,
    planted_folder: Path,
    fragile_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Any,
) -> None:
    monkeypatch.setattr(precision, "SAMPLE", 12)
    monkeypatch.setattr(precision, "_WORTH", 48)
    monkeypatch.setattr(compute, "candidates", lambda _device: ("bf16",))
    weights = planted_folder / "bagnet33.safetensors" if sound else fragile_weights
    built = run("build", planted_folder / "pictures", "--weights", weights, "--out", tmp_path / "i")
    assert built.status == 0
    (model,) = Index.open(tmp_path / "i").info().models
    record = model.record
    (found,) = record.comparisons
    assert record.precision_asked == "auto"
    assert record.precision == ("bf16" if sound else "fp32")
    assert found.accepted == sound
    assert found.logit_error is not None
    assert (found.logit_error < 0.02) == sound
    assert f"bagnet33 computes in {record.precision}, " in built.err
    assert str(found) in " ".join(built.err.split())
    said = run("info", "-i", tmp_path / "i").out
    assert record.precision_reason in " ".join(said.split())
    manifest = json.loads((tmp_path / "i" / "index.json").read_text())
    assert manifest["models"]["bagnet33"]["comparisons"][0]["images"] == 12
    with Index.open(tmp_path / "i") as index:
        assert index.verify().ok
        (row,) = index.sql("SELECT precision, count(*) AS n FROM models GROUP BY 1").to_dicts()
        assert row == {"precision": record.precision, "n": 1}


def test_verify_knows_how_far_a_precision_may_be_off(
    planted_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "candidates", lambda _device: ("bf16",))
    index = Index.build(
        planted_folder / "pictures",
        weights=planted_folder / "bagnet33.safetensors",
        precision="bf16",
        limit=12,
        out=tmp_path / "i",
    )
    (model,) = index.info().models
    (found,) = model.record.comparisons
    assert (found.images, found.shard, model.record.precision_reason) == (4, None, "as asked")
    assert 0.001 < found.feature_error < 0.5
    alone = next(check for check in index.verify().checks if check.name.startswith("4."))
    assert alone.checked
    assert not alone.problems
    # With a bound that is too small the check fails: it does look.
    directory = IndexDirectory(tmp_path / "i")
    manifest = directory.manifest()
    tight = model.record.model_copy(update={"comparisons": (found.model_copy(update={"feature_error": 1e-5}),)})
    directory.write_manifest(manifest.model_copy(update={"models": {"bagnet33": tight}}))
    alone = next(check for check in Index.open(tmp_path / "i").verify().checks if check.name.startswith("4."))
    assert alone.problems


def test_tf32_is_for_gpus(planted_folder: Path, tmp_path: Path, run: Any) -> None:
    weights = planted_folder / "bagnet33.safetensors"
    told = run("build", planted_folder / "pictures", "--weights", weights, "--precision", "tf32", "--device", "cpu")
    assert told.status == 1
    assert "tf32 is for GPUs" in told.err
    told = run("build", planted_folder / "pictures", "--weights", weights, "--precision", "int8")
    assert (told.status, "not 'int8'" in told.err) == (1, True)
