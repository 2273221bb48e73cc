"""Similar patches: exact answers against brute force, approximate ones against exact ones, and what may be in them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bagindex import Index, derived
from bagindex.arrays import to_float32
from bagindex.build import BuildSettings, build
from bagindex.errors import DamagedIndexError, QueryError, SettingsError
from bagindex.geometry import cell_at, from_source, make_grid, shared_area, to_source
from bagindex.grow import update
from bagindex.observer import BuildObserver
from bagindex.similarity import ann, lists, making, search
from bagindex.store import IndexDirectory
from bagindex.stored import StoredFeatures
from bagindex_schemas.derived import AnnRecord
from fakes import LinearCompute, MemorySource
from sealing import change_record

CLASSES = ["tench", "shark", "ray"]
PATCHES = 9


class _Compute(LinearCompute):
    """3 × 3 patches of 8 × 8 pixels, 8 apart, whose features are a table's rows."""

    def __init__(self, table: NDArray[np.float32]) -> None:
        super().__init__(CLASSES, side=(24, 24), table=table)
        self.weight = np.random.default_rng(0).normal(0, 1, (3, table.shape[2])).astype(np.float32)
        self.feature_size = table.shape[2]


def make(folder: Path, table: NDArray[np.float32], labels: list[str | None]) -> Index:
    class_ids = {name: i for i, name in enumerate(CLASSES)}
    settings = BuildSettings(workers=1, shard_size=16)
    build(IndexDirectory(folder), MemorySource(labels, side=24), class_ids, _Compute(table), settings)
    return Index.open(folder)


IMAGES, DIMENSIONS = 400, 64


@pytest.fixture(scope="module")
def table() -> NDArray[np.float32]:
    """Features in clusters, some the same, one of zeros."""
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 1, (40, DIMENSIONS))
    features = centres[rng.integers(0, 40, (IMAGES, PATCHES))] + rng.normal(0, 0.5, (IMAGES, PATCHES, DIMENSIONS))
    features[3, :4] = features[2, 0]
    features[5, 0] = 0
    return features.astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def index(table: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    labels: list[str | None] = [[*CLASSES, None][i % 4] for i in range(IMAGES)]
    with make(tmp_path_factory.mktemp("similar") / "index", table, labels) as opened:
        yield opened


@pytest.fixture
def writable(index: Index, tmp_path: Path) -> Iterator[Index]:
    shutil.copytree(index.path, tmp_path / "copy")
    with Index.open(tmp_path / "copy") as opened:
        yield opened


def by_hand(table: NDArray[np.float32], patch: int, metric: str) -> list[int]:
    """All patches from the nearest on, equal ones by id, without the patch itself."""
    flat = table.reshape(-1, table.shape[2]).astype(np.float64)
    query = flat[patch]
    if metric == "cosine":
        lengths = np.linalg.norm(flat, axis=1) * np.linalg.norm(query)
        far = -np.divide(flat @ query, lengths, out=np.zeros(len(flat)), where=lengths > 0)
    else:
        far = np.linalg.norm(flat - query, axis=1)
    order = np.lexsort((np.arange(len(flat)), np.round(far, 12)))
    return [int(each) for each in order if each != patch]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("patch", [0, 18, 27, 45, 3599])
def test_exact_answers(index: Index, table: NDArray[np.float32], patch: int, metric: str) -> None:
    found = index.similar(patch, k=30, metric=metric)
    assert found.exact
    assert [each.patch_id for each in found] == by_hand(table, patch, metric)[:30]
    assert f"all {IMAGES * PATCHES:,} patches" in found.how
    nearest = table.reshape(-1, DIMENSIONS)[[found[0].patch_id, patch]].astype(np.float64)
    assert found[0].distance == pytest.approx(np.linalg.norm(nearest[0] - nearest[1]), abs=1e-9)
    assert [each.rank for each in found] == list(range(1, 31))


def test_many_equal_ones_come_by_id(tmp_path: Path) -> None:
    table = np.ones((200, PATCHES, 8), np.float32)
    with make(tmp_path / "i", table, ["tench"] * 200) as opened:
        found = opened.similar(900, k=50)
        assert [each.patch_id for each in found] == list(range(50))
        assert {each.cosine for each in found} == {1.0}


def test_filters(index: Index, table: NDArray[np.float32]) -> None:
    nearest = by_hand(table, 18, "cosine")  # image 2, a ray

    def label(patch: int) -> str | None:
        return [*CLASSES, None][patch // PATCHES % 4]

    def ids(**options: object) -> list[int]:
        return [each.patch_id for each in index.similar(18, k=20, **options)]  # type: ignore[arg-type]

    assert ids(class_="shark") == [p for p in nearest if label(p) == "shark"][:20]
    assert ids(wrong_class=True) == [p for p in nearest if label(p) in ("tench", "shark")][:20]
    assert ids(class_="tench", wrong_class=True) == [p for p in nearest if label(p) in ("ray", "shark")][:20]
    assert ids(other_images=True) == [p for p in nearest if p // PATCHES != 2][:20]
    assert ids(where="image_id < 30") == [p for p in nearest if p // PATCHES < 30][:20]
    assert (
        ids(where="image_id < 30", class_="ray", other_images=True)
        == [p for p in nearest if p // PATCHES < 30 and label(p) == "ray" and p // PATCHES != 2][:20]
    )
    seen: set[int] = set()
    first = [p for p in nearest if not (p // PATCHES in seen or seen.add(p // PATCHES))]  # type: ignore[func-returns-value]
    assert ids(per_image=1) == first[:20]
    found = index.similar(18, class_="shark")
    assert found.exact
    assert "of the 100 images asked about" in found.how
    assert index.similar(18, where="false").patches == ()


def test_unlabelled_images_have_no_wrong_class(index: Index) -> None:
    with pytest.raises(QueryError, match="no label"):
        index.similar(3 * PATCHES, wrong_class=True)
    assert index.similar(3 * PATCHES, class_="ray", wrong_class=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give the id of a patch"),
        ({"patch": 1, "image": 3, "at": (1, 1)}, "give the id of a patch"),
        ({"patch": 1, "at": (1, 1)}, "give the id of a patch"),
        ({"image": 3}, "give the id of a patch"),
        ({"image": 3, "at": (1, 1), "box": (0, 0, 2, 2)}, "exclude each other"),
        ({"image": 3, "box": (5, 0, 2, 2)}, "x0 < x1"),
        ({"image": 3, "at": (100, 1)}, "outside of what linear sees"),
        ({"patch": -1}, "no patch -1"),
        ({"patch": 3600}, "they go up to 3599"),
        ({"patch": 2**70}, "no patch"),
        ({"patch": 1, "k": 0}, "-k goes from 1"),
        ({"patch": 1, "per_image": 0}, "--per-image starts at 1"),
        ({"patch": 1, "class_": "whale"}, "whale"),
        ({"patch": 1, "where": "nonsense ("}, "no SQL condition"),
        ({"patch": 1, "where": "nonsense > 3"}, "--where knows the columns"),
        ({"patch": 1, "model": "other"}, "no model"),
    ],
)
def test_what_cannot_be_asked(index: Index, options: dict[str, object], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        index.similar(**options)  # type: ignore[arg-type]


def test_metric_must_be_known(index: Index) -> None:
    with pytest.raises(SettingsError, match="cosine or l2"):
        index.similar(1, metric="hamming")


def test_at_and_box_choose_the_patch(index: Index) -> None:
    assert index.similar(image=7, at=(12, 20)).asked.patch_id == 7 * PATCHES + 2 * 3 + 1
    asked = index.similar(image=7, box=(14, 0, 24, 8)).asked
    assert (asked.row, asked.col, asked.box) == (0, 2, (16, 0, 24, 8))
    assert asked.crop() is not None


def test_cell_at() -> None:
    grid = make_grid(33, 8, 224, 224)
    assert cell_at(grid, (16.5, 16.5, 16.5, 16.5)) == (0, 0)
    assert cell_at(grid, (100, 60, 133, 93)) in {(7, 12), (7, 13), (8, 12), (8, 13)}
    assert cell_at(grid, (96, 64, 129, 97)) == (8, 12)
    assert cell_at(grid, (0, 0, 224, 224)) == (12, 12)  # all share their own area: the one nearest to the middle
    assert cell_at(grid, (218, 0, 224, 5)) is None  # the last 7 columns are never seen
    assert cell_at(grid, (-5, -5, -1, -1)) is None


def test_from_source_is_the_inverse(index: Index) -> None:
    from bagindex.geometry import Placement

    placement = Placement(640, 480, 341, 256, 58, 16)
    box = (10.0, 20.0, 43.0, 53.0)
    assert from_source(to_source((10, 20, 43, 53), placement), placement) == pytest.approx(box)


def test_to_float32_is_exact() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    np.testing.assert_array_equal(to_float32(finite), finite.astype(np.float32))
    assert np.signbit(to_float32(np.array([-0.0], np.float16)))[0]


# The FAISS index


FACTORIES = ["IVF16,RaBitQ", "IVF16,RaBitQ2", "IVF8,Flat", "IVF8,SQfp16", "PCA16,IVF8,Flat", "Flat", "HNSW16", "SQ8"]


@pytest.mark.parametrize("factory", FACTORIES)
def test_factories(writable: Index, factory: str) -> None:
    made = writable.make_ann(factory)
    assert made.factory == factory
    assert made.patches == IMAGES * PATCHES
    assert made.probing is not None
    assert made.probing.recall >= 0.9
    agree = []
    for patch in range(0, IMAGES * PATCHES, 97):
        found, truth = writable.similar(patch), writable.similar(patch, exact=True)
        assert not found.exact
        assert truth.exact
        assert "FAISS" in found.how
        assert len(found) == 10
        agree.append(len({p.patch_id for p in found} & {p.patch_id for p in truth}) / 10)
        shared = {p.patch_id: (p.cosine, p.distance) for p in truth}
        # What both find has the same numbers, in the same order.
        assert all(shared.get(p.patch_id, (p.cosine, p.distance)) == (p.cosine, p.distance) for p in found)
        assert list(found) == sorted(found, key=lambda p: (-p.cosine, p.patch_id))
    assert np.mean(agree) >= 0.9


def test_what_is_opened_is_mapped_and_not_read(writable: Index) -> None:
    """The codes stay on the disk: those of a large index do not fit into memory."""
    import faiss

    from bagindex.similarity.ann import read

    writable.make_ann("IVF16,RaBitQ")
    opened = read(writable.path / "linear" / "derived" / "patches-1" / "patches.faiss")
    lists = faiss.downcast_InvertedLists(faiss.extract_index_ivf(opened).invlists)
    assert isinstance(lists, faiss.OnDiskInvertedLists)
    assert lists.read_only
    assert sum(lists.list_size(number) for number in range(16)) == IMAGES * PATCHES


def test_recall_is_measured_honestly(writable: Index, table: NDArray[np.float32]) -> None:
    """An index that forgets almost everything is said to."""
    made = writable.make_ann("PCA1,IVF4,Flat")
    assert made.probing is not None
    assert made.probing.recall < 0.9
    assert made.queries == 200
    whole = writable.make_ann("IVF1,Flat")
    assert whole.probing is not None
    assert whole.probing.recall == 1.0


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In little memory the index is made in parts."""
    monkeypatch.setattr(making, "_LEAST_MEMORY", 1000)
    monkeypatch.setattr(making, "_IMAGES_AT_ONCE", 16)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("factory", ["IVF4,Flat", "PCA16,IVF4,Flat", "IVF16,RaBitQ"])
def test_lists_of_parts_are_put_together(
    writable: Index, factory: str, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(made: AnnRecord) -> tuple[list[list[int]], list[object]]:
        """The ids and codes of each list, and answers."""
        kind = "patches" if metric == "cosine" else "patches-l2"
        folder = max((writable.path / "linear/derived").glob(f"{kind}-[0-9]"))
        beside = folder / lists.FILE
        index = ann.read(folder / "patches.faiss", beside if beside.name in made.files else None)
        held = lists.of_index(index)
        assert held.read_only
        ids = [list(map(int, faiss.rev_swig_ptr(held.get_ids(i), held.list_size(i)))) for i in range(held.nlist)]
        codes = [
            faiss.rev_swig_ptr(held.get_codes(i), held.list_size(i) * held.code_size).tolist()
            for i in range(held.nlist)
        ]
        answers = [writable.similar(patch, metric=metric).to_dicts() for patch in range(0, 3600, 311)]
        return [*ids, *codes], answers

    import faiss

    made = writable.make_ann(factory, metric=metric)
    assert set(made.files) == {"patches.faiss"}
    whole = opened(made)
    for makers in (1, 3):
        monkeypatch.setattr(making, "cores", lambda makers=makers: makers)
        monkeypatch.setattr(making._Maker, "_images_of_a_part", lambda _self, _makers: 48)
        made = writable.make_ann(factory, metric=metric)
        assert set(made.files) == {"patches.faiss", "patches.lists"}
        assert opened(made) == whole
    assert not writable.similar(0, metric=metric).exact


@pytest.mark.usefixtures("parts")
def test_lists_that_cannot_be_put_together_stay_in_parts(writable: Index) -> None:
    """Those of fast scans are kept in blocks."""
    made = writable.make_ann("IVF4,PQ8x4fs")
    before = [writable.similar(patch).to_dicts() for patch in range(0, 3600, 311)]
    again = writable.make_ann("IVF4,PQ8x4fs", memory=20_000)
    assert len(made.files) == 1
    assert len(again.files) > 4
    assert [writable.similar(patch).to_dicts() for patch in range(0, 3600, 311)] == before
    assert not writable.similar(0).exact


@pytest.mark.usefixtures("parts")
def test_lists_that_are_others_are_refused(writable: Index) -> None:
    """FAISS reads where it is told to."""
    writable.make_ann("IVF4,Flat", memory=250_000)
    (path,) = (writable.path / "linear/derived").glob("*/patches.lists")
    whole = path.read_bytes()
    counts = np.frombuffer(whole, "<i8", 4, len(whole) - 32)
    for crafted in (
        [counts[0] + 1, *counts[1:]],
        [-1, counts[0] + counts[1] + 1, *counts[2:]],
        [2**62, counts[1], 2**62, counts[3]],
        [2**63 - 1] * 4,
    ):
        path.write_bytes(whole[:-32] + np.array(crafted, "<i8").tobytes())
        with Index.open(writable.path) as index, pytest.raises(DamagedIndexError, match="does not hold the 4 lists"):
            index.similar(0)
    path.write_bytes(whole[-16:])
    with pytest.raises(ValueError, match="too short"):
        ann.read(path.with_name("patches.faiss"), path)


@pytest.mark.usefixtures("parts")
def test_making_an_index_is_stopped_soon(writable: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other part is begun, and nothing is left."""
    begun = []
    blocks = StoredFeatures.blocks

    def slow(self: StoredFeatures, places: range, images: int) -> Iterator[object]:
        begun.append(places)
        for block in blocks(self, places, images):
            time.sleep(0.3)
            yield block

    def stop(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    monkeypatch.setattr(StoredFeatures, "blocks", slow)
    monkeypatch.setattr(making, "cores", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        writable.make_ann("IVF4,Flat", memory=250_000, progress=stop)
    assert len(begun) < 8  # of 25
    assert not list((writable.path / "linear/derived").iterdir())


def test_filters_with_an_index(writable: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a filter leaves few, answers are exact; where it leaves many, the index looks only at those."""
    writable.make_ann("IVF16,Flat")
    few = writable.similar(18, where="image_id < 40")
    assert few.exact
    assert "360 patches of the 40 images" in few.how
    monkeypatch.setattr(search, "SCAN", 100)
    many = writable.similar(18, where="image_id % 2 = 0", k=20)
    assert not many.exact
    assert all(each.image_id % 2 == 0 for each in many)
    truth = writable.similar(18, where="image_id % 2 = 0", k=20, exact=True)
    assert len({p.patch_id for p in many} & {p.patch_id for p in truth}) >= 18
    others = writable.similar(18, other_images=True)
    assert not others.exact
    assert all(each.image_id != 2 for each in others)


def test_too_few_found_means_looking_at_all(writable: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    writable.make_ann("IVF16,Flat")
    monkeypatch.setattr(search, "_FARTHEST", 30)
    found = writable.similar(18, k=300)
    assert found.exact
    assert len(found) == 300
    assert "found too few" in found.how


def test_none_and_auto(writable: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    made = writable.make_ann("auto")
    assert made.factory is None  # so few
    assert made.files == {}
    assert writable.similar(0).exact
    monkeypatch.setattr(making, "EXACT", 1000)
    made = writable.make_ann("auto")
    assert made.factory == "IVF32,RaBitQ"
    assert writable.make_ann("none").factory is None
    assert writable.similar(0).exact


def test_choice_by_size_and_memory() -> None:
    choose = making.AnnSettings().choose
    assert choose(30_000, 2048) is None
    assert choose(196_416, 2048) == "IVF256,RaBitQ"
    assert choose(28_800_000, 2048) == "IVF3814,RaBitQ"
    assert making.AnnSettings(memory=8_000_000_000).choose(28_800_000, 2048) == "IVF4096,RaBitQ"
    assert making.AnnSettings(memory=64_000_000).choose(28_800_000, 2048) == "IVF122,RaBitQ"


def test_settings_that_are_none(writable: Index) -> None:
    with pytest.raises(SettingsError, match="FAISS knows no index"):
        writable.make_ann("Nonsense")
    with pytest.raises(SettingsError, match="fewer lists"):
        writable.make_ann("IVF100000,Flat")
    with pytest.raises(SettingsError, match="--ann-memory starts at"):
        writable.make_ann("auto", memory=1)
    with pytest.raises(SettingsError, match="cosine or l2"):
        writable.make_ann(metric="hamming")
    assert not (writable.path / "linear" / "derived").exists() or not list((writable.path / "linear/derived").iterdir())


def test_what_takes_too_much_memory_is_refused(writable: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_LEAST_MEMORY", 1000)
    with pytest.raises(SettingsError, match="of memory"):
        writable.make_ann("Flat", memory=500_000)


def test_an_index_of_another_state_is_not_used(writable: Index) -> None:
    writable.make_ann("IVF16,Flat")
    folder = writable.path / "linear" / "derived" / "patches-1"
    change_record(folder / "patches.json", lambda record: record.update(features_sha256="0" * 64))
    writable.close()
    found = writable.similar(0)
    assert found.exact
    assert "bagindex index" in found.how
    assert writable.info().models[0].derived[0].stale


def test_it_is_made_of_the_images_that_are_there_now(tmp_path: Path) -> None:
    directory, compute = IndexDirectory(tmp_path / "i"), LinearCompute("ab")
    settings = BuildSettings(shard_size=4, workers=1)
    build(directory, MemorySource(["a"] * 8), {"a": 0}, compute, settings)
    with Index.open(tmp_path / "i") as index:
        assert len(index.similar(0, k=100, overlap=True)) == 31
        update(directory, MemorySource(["a"] * 12), {"a": 0}, {"linear": compute}, settings)
        assert index.make_ann("Flat").patches == 48
        found = index.similar(0, k=100, overlap=True)
        assert (len(found), found.exact) == (47, True)


def test_damage_is_found(writable: Index) -> None:
    writable.make_ann("IVF16,RaBitQ")
    assert writable.verify().checks[-2].checked == 3  # the record, the index, and the catalog
    path = writable.path / "linear" / "derived" / "patches-1" / "patches.faiss"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (problem,) = writable.verify().problems
    assert "patches.faiss is damaged" in problem
    assert "bagindex index" in problem
    path.write_bytes(data[:-1])
    writable.close()
    with pytest.raises(DamagedIndexError, match="bagindex index"):
        writable.similar(0)
    path.write_bytes(b"x" * len(data))
    writable.close()
    with pytest.raises(DamagedIndexError, match="bagindex index"):
        writable.similar(0)
    path.unlink()
    with pytest.raises(DamagedIndexError, match="missing"):
        writable.similar(0)
    writable.make_ann("IVF16,RaBitQ")
    assert writable.similar(0)
    assert writable.verify().ok


def test_a_new_one_takes_the_place_of_the_old(writable: Index) -> None:
    reader = Index.open(writable.path)
    writable.make_ann("IVF16,Flat")
    before = reader.similar(100)
    writable.make_ann("IVF8,Flat")
    assert [p.name for p in (writable.path / "linear" / "derived").iterdir()] == ["patches-2"]
    assert reader.similar(100) == before  # what it has open stays
    assert "of 8 lists" in writable.similar(100).how


def test_images_without_features(tmp_path: Path, table: NDArray[np.float32]) -> None:
    class_ids = {name: i for i, name in enumerate(CLASSES)}
    settings = BuildSettings(workers=1, keep="evidence")  # type: ignore[arg-type]
    build(IndexDirectory(tmp_path / "i"), MemorySource(["ray"] * 4, side=24), class_ids, _Compute(table), settings)
    with Index.open(tmp_path / "i") as opened, pytest.raises(QueryError, match="--keep features"):
        opened.similar(0)
    with Index.open(tmp_path / "i") as opened, pytest.raises(QueryError, match="--keep features"):
        opened.make_ann()


# Real patches


def test_neighbours_do_not_crowd_the_answer(planted_index: Index) -> None:
    patch = 5 * 256 + 100
    found = planted_index.similar(patch, k=25)
    boxes: dict[int, list[tuple[int, int, int, int]]] = {5: [found.asked.box]}
    for each in found:
        assert not any(shared_area(each.box, box) for box in boxes.get(each.image_id, []))
        boxes.setdefault(each.image_id, []).append(each.box)
    crowded = planted_index.similar(patch, k=25, overlap=True)
    assert patch not in [each.patch_id for each in crowded]
    assert crowded[0].cosine >= found[0].cosine
    pairs = [(a, b) for a in crowded for b in crowded if a.image_id == b.image_id and a.patch_id < b.patch_id]
    assert any(shared_area(a.box, b.box) for a, b in pairs)


def test_a_file_that_is_not_in_the_index(planted_index: Index, planted_folder: Path, tmp_path: Path) -> None:
    """Its feature is computed: the same pixels give the same neighbours."""
    path = planted_index.sql("SELECT path FROM images WHERE image_id = 11").to_dicts()[0]["path"]
    with Image.open(planted_folder / "pictures" / path) as picture:
        picture.save(tmp_path / "copy.png")
        width, height = picture.size
    found = planted_index.similar(image=tmp_path / "copy.png", at=(width / 2, height / 2), k=5)
    assert found.asked.patch_id is None
    assert found[0].image_id == 11
    assert (found[0].row, found[0].col) == (found.asked.row, found.asked.col)
    assert found[0].cosine == pytest.approx(1, abs=1e-5)
    known = planted_index.similar(image=11, at=(width / 2, height / 2), k=5)
    assert known.asked.patch_id == found[0].patch_id


def test_pictures_and_files(planted_index: Index, tmp_path: Path) -> None:
    found = planted_index.similar(1000, k=4)
    assert found.picture().size[0] > 4 * 150
    assert planted_index.similar(1000, k=4, metric="l2").picture().size[0] > 4 * 150
    for ending in ("png", "json", "csv", "parquet"):
        found.save(tmp_path / f"f.{ending}")
    saved = json.loads((tmp_path / "f.json").read_text())
    assert saved["exact"] is True
    assert saved["asked"]["patch_id"] == 1000
    assert [each["patch_id"] for each in saved["patches"]] == [each.patch_id for each in found]
    assert found.to_arrow().schema.metadata[b"exact"] == b"true"
    assert "cosine" in str(found)
    assert found._repr_png_() is not None


def test_build_ends_with_it(planted_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "EXACT", 1000)
    pictures = tmp_path / "pictures"
    shutil.copytree(planted_folder / "pictures" / "fish", pictures / "fish")
    options = {"weights": planted_folder / "bagnet33.safetensors", "out": tmp_path / "index"}
    heard: list[tuple[str, int, int]] = []

    class Observer(BuildObserver):
        def related(self, model: str, done: int, total: int) -> None:
            heard.append((model, done, total))

    index = Index.build(pictures, **options, observer=Observer())  # type: ignore[arg-type]
    (made,) = index.info().models[0].derived
    assert made.record.factory == "IVF32,RaBitQ"  # type: ignore[attr-defined]
    assert heard[-1][1] == heard[-1][2]
    before = derived.newest(IndexDirectory(index.path), "bagnet33", derived.ANN)
    Index.build(pictures, **options)  # type: ignore[arg-type]
    assert derived.newest(IndexDirectory(index.path), "bagnet33", derived.ANN) == before
    # New images: the index is made again, as it was asked for.
    index.make_ann("IVF8,Flat")
    shutil.copytree(planted_folder / "pictures" / "tree", pictures / "tree")
    index.update(pictures)
    (made,) = index.info().models[0].derived
    assert not made.stale
    assert made.record.factory == "IVF8,Flat"  # type: ignore[attr-defined]
    assert made.record.patches == 16 * 256  # type: ignore[attr-defined]
    assert index.verify().ok
    assert Index.build(pictures, weights=options["weights"], out=tmp_path / "none", ann="none").similar(0).exact


def test_command(run, planted_index: Index, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    where = ("-i", planted_index.path)
    result = run("similar", 1000, "-k", 3, *where)
    assert result.status == 0
    assert "exact: all 12,288 patches were compared" in " ".join(result.out.split())
    asked = json.loads(run("similar", 1000, "--other-images", *where, "--format", "json").out)
    assert len(asked["patches"]) == 10
    assert all(each["image_id"] != 3 for each in asked["patches"])
    assert run("similar", 1000, *where, "--format", "csv").out.startswith("rank,model,patch_id")
    assert run("similar", "--image", 3, "--at", "150,150", *where).status == 0
    assert run("similar", "--image", 3, "--box", "100,100,200,180", *where, "-o", tmp_path / "x.png").status == 0
    assert (tmp_path / "x.png").stat().st_size > 1000
    for wrong in (
        ["similar"],
        ["similar", 1, "--image", 3],
        ["similar", "--image", 3],
        ["similar", "--image", 3, "--at", "a,b"],
    ):
        assert run(*wrong, *where).status == 2
    assert run("similar", 10**9, *where).err.startswith("bagindex: bagnet33 has no patch")


def test_index_command(run, writable: Index) -> None:  # type: ignore[no-untyped-def]
    result = run("index", "-i", writable.path, "--ann", "IVF8,RaBitQ", "--ann-memory", "100MB")
    assert result.status == 0
    assert result.err.startswith("bagindex: linear: making an index for similar patches\n")
    record = json.loads((writable.path / "linear" / "derived" / "patches-1" / "patches.json").read_text())
    recall = f"recall of the 10 nearest {100 * record['trials'][-1]['recall']:.1f} % on 200 held-out patches"
    assert recall in result.out
    assert recall in " ".join(run("info", "-i", writable.path).out.split())
    told = json.loads(run("info", "-i", writable.path, "--format", "json").out)
    assert told["models"][0]["derived"][0]["factory"] == "IVF8,RaBitQ"
    none = run("index", "-i", writable.path, "--ann", "none")
    assert (none.status, "making" in none.err) == (0, False)
    assert "no FAISS index (--ann none)" in run("info", "-i", writable.path).out
    assert run("index", "-i", writable.path, "--ann-memory", "much").status == 2
    nonsense = run("index", "-i", writable.path, "--ann", "Nonsense")
    assert (nonsense.status, "making" in nonsense.err) == (1, False)
