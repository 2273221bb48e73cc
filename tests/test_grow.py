"""An index that grows: higher keep levels, several models, new files, other labels, removal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.errors import IncompleteIndexError, LabelError, QueryError, SettingsError, SourceError
from bagindex.evidence import Evidence
from bagindex.grow import UpdateReport, remove_model, update
from bagindex.images import Rejected
from bagindex.observer import BuildObserver
from bagindex.sources import Entry
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from bagindex_schemas.rejects import RejectCode
from fakes import LinearCompute, MemorySource, number_png
from test_build import BROKEN, CLASS_IDS, LABELS, contents, run

SETTINGS = BuildSettings(shard_size=4, workers=2)


class CountingCompute(LinearCompute):
    """Says how many images it has run."""

    images = 0

    def run(self, pixels: np.ndarray) -> Evidence:
        self.images += len(pixels)
        return super().run(pixels)


class NoSource(MemorySource):
    """A source that may be listed, but not read."""

    def read(self, entry: Any) -> bytes:
        raise AssertionError(f"{entry.path} is read")


@pytest.mark.parametrize(
    "levels",
    [(Keep.SUMMARY, Keep.EVIDENCE, Keep.FEATURES), (Keep.SUMMARY, Keep.FEATURES), (Keep.EVIDENCE, Keep.FEATURES)],
)
def test_higher_keep_levels_are_filled_in_from_pixels(tmp_path: Path, levels: tuple[Keep, ...]) -> None:
    folder = tmp_path / "i"
    run(folder, keep=levels[0])
    for level in levels[1:]:
        before = contents(folder)
        build(IndexDirectory(folder), NoSource(LABELS, BROKEN), CLASS_IDS, LinearCompute("ab"), replace(keep=level))
        after = contents(folder)
        assert {k: v for k, v in after.items() if k in before and k != "index.json"} == {
            k: v for k, v in before.items() if k != "index.json"
        }
    run(tmp_path / "whole", keep=levels[-1])
    with Index.open(folder) as grown, Index.open(tmp_path / "whole") as whole:
        for query in ("FROM evidence ORDER BY class_id, patch_id", "FROM features ORDER BY patch_id"):
            assert grown.sql(query).to_arrow().equals(whole.sql(query).to_arrow())
        assert grown.verify().ok
        assert grown.info().models[0].record.keep is levels[-1]
        assert grown.info().complete


def replace(**changes: Any) -> BuildSettings:
    import dataclasses

    return dataclasses.replace(SETTINGS, **changes)


def test_interrupted_filling_in_leaves_the_lower_level_in_force(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    run(folder, keep=Keep.SUMMARY)

    class Stop(BuildObserver):
        left = 6

        def advanced(self, files: int) -> None:
            self.left -= files
            if self.left == 0:
                raise KeyboardInterrupt

    source = MemorySource(LABELS, BROKEN)
    with pytest.raises(KeyboardInterrupt):
        build(IndexDirectory(folder), source, CLASS_IDS, LinearCompute("ab"), replace(keep=Keep.FEATURES), Stop())
    assert len(list(folder.glob("linear/features/shard-*"))) == 1
    with Index.open(folder) as index:
        assert len(index.top_patches("a")) == 3
        with pytest.raises(QueryError, match="does not keep evidence"):
            index.sql("FROM evidence")
    build(IndexDirectory(folder), source, CLASS_IDS, LinearCompute("ab"), replace(keep=Keep.FEATURES))
    with Index.open(folder) as index:
        assert len(index.sql("FROM evidence")) == 64
        assert index.verify().ok


def test_several_models_in_one_pass_decode_each_picture_once(tmp_path: Path) -> None:
    reads: list[bytes] = []

    class Source(MemorySource):
        def read(self, entry: Any) -> bytes:
            reads.append(entry.path)
            return super().read(entry)

    models = [LinearCompute("ab", name="one"), LinearCompute("ab", name="two", dimensions=3, batch_size=2)]
    # Without pixels: to know what they will take, a few are compressed beforehand.
    settings = replace(pixels=False)
    report = build(IndexDirectory(tmp_path / "i"), Source(LABELS, BROKEN), CLASS_IDS, models, settings)
    assert len(reads) == len(set(reads)) == 10
    assert report.patches == {"one": 32, "two": 32}
    for model in models:
        build(IndexDirectory(tmp_path / model.name), MemorySource(LABELS, BROKEN), CLASS_IDS, model, settings)
        alone, together = contents(tmp_path / model.name), contents(tmp_path / "i")
        assert {k: v for k, v in alone.items() if k != "index.json"}.items() <= together.items()
    with Index.open(tmp_path / "i") as index:
        assert index.verify().ok
        with pytest.raises(QueryError, match="say --model, one of one, two"):
            index.top_patches("a")


def test_models_that_cannot_share_an_index(tmp_path: Path) -> None:
    source = MemorySource(LABELS)
    one = LinearCompute("ab", name="one")
    for other, message in (
        (LinearCompute("ab", name="two", side=(24, 24)), "takes another input"),
        (LinearCompute("abc", name="two"), "other classes"),
        (LinearCompute("ab", name="one"), "given twice"),
    ):
        with pytest.raises(SettingsError, match=message):
            build(IndexDirectory(tmp_path / "i"), source, CLASS_IDS, [one, other], SETTINGS)


class Growing:
    """A source to which files come, and an index of it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.directory = IndexDirectory(folder)
        self.labels: dict[int, str | None] = {i * 10: label for i, label in enumerate(LABELS)}
        self.broken: dict[int, RejectCode] = {20: RejectCode.NOT_AN_IMAGE, 90: RejectCode.PERMISSION}
        self.longer: dict[int, int] = {}
        self.models = {name: CountingCompute("ab", name=name) for name in ("one", "two")}
        build(self.directory, self.source(), CLASS_IDS, list(self.models.values()), replace(**settings))

    def source(self) -> NumberedSource:
        source = NumberedSource(dict(sorted(self.labels.items())), dict(self.broken))
        source.longer = self.longer
        return source

    def update(self, **options: Any) -> UpdateReport:
        return update(self.directory, self.source(), CLASS_IDS, self.models, SETTINGS, **options)


class NumberedSource(MemorySource):
    """Files with numbers of their own, so that new ones come in between."""

    def __init__(self, labels: dict[int, str | None], codes: dict[int, RejectCode]) -> None:
        super().__init__(list(labels.values()))
        self.numbers = labels
        self.codes = codes
        self.longer: dict[int, int] = {}

    @property
    def entries(self) -> Any:
        """Sizes are the files', but for those that are said to be longer."""
        size = {number: len(number_png(number, 16)) + self.longer.get(number, 0) for number in self.numbers}
        return [Entry(b"%04d.png" % number, size[number], label) for number, label in self.numbers.items()]

    def read(self, entry: Entry) -> bytes:
        number = int(entry.path.split(b".")[0])
        if number in self.codes:
            raise Rejected(self.codes[number], "broken on purpose")
        return number_png(number, 16)


@pytest.mark.parametrize("pixels", [True, False])
def test_new_files_come_at_the_end(tmp_path: Path, pixels: bool) -> None:
    growing = Growing(tmp_path / "i", pixels=pixels)
    before = contents(growing.directory.root)
    with Index.open(tmp_path / "i") as index:
        ids = index.sql("SELECT image_id, path FROM images").to_dicts()
    assert growing.update().new == 0
    assert contents(growing.directory.root) == before
    for model in growing.models.values():
        model.images = 0
    growing.labels |= {5: "b", 15: None, 85: "a", 999: "b"}
    growing.broken[85] = RejectCode.TRUNCATED
    report = growing.update()
    assert (report.new, report.build.computed, report.changed, report.missing) == (4, 3, (), ())
    assert {model.images for model in growing.models.values()} == {3}
    after = contents(growing.directory.root)
    assert {k: v for k, v in before.items() if k != "index.json"}.items() <= after.items()
    with Index.open(tmp_path / "i") as index:
        rows = index.sql("SELECT image_id, path, label_name FROM images ORDER BY 1").to_dicts()
        assert [{k: row[k] for k in ("image_id", "path")} for row in rows[: len(ids)]] == ids
        assert [tuple(row.values()) for row in rows[len(ids) :]] == [
            (10, "0005.png", "b"),
            (11, "0015.png", None),
            (13, "0999.png", "b"),
        ]
        assert {p.image_id for p in index.top_patches("b", k=99, model="two")} == {1, 4, 6, 8, 10, 13}
        assert len(index.sql("SELECT DISTINCT image_id FROM evidence WHERE model = 'one'")) == 11
        assert index.verify().ok
    # The same build command goes on to work, and another model can be added.
    third = LinearCompute("ab", name="three")
    build(growing.directory, growing.source(), CLASS_IDS, third, replace(pixels=pixels))
    with Index.open(tmp_path / "i") as index:
        assert len(index.sql("SELECT DISTINCT image_id FROM evidence WHERE model = 'three'")) == 11
        assert index.verify().ok
    growing.labels[1000] = "a"
    with pytest.raises(SettingsError, match="`bagindex update` adds new ones"):
        build(growing.directory, growing.source(), CLASS_IDS, third, replace(pixels=pixels))


def test_an_interrupted_update_is_finished_by_the_next(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    growing.labels |= dict.fromkeys(range(200, 270), "a")

    class Stop(BuildObserver):
        left = 66

        def advanced(self, files: int) -> None:
            self.left -= files
            if self.left == 0:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        growing.update(observer=Stop())
    with Index.open(tmp_path / "i") as index:
        assert len(index.sql("FROM images")) == 8
    growing.labels[5] = "b"
    report = growing.update()
    assert (report.new, report.build.images) == (7, 79)
    with Index.open(tmp_path / "i") as index:
        assert index.sql("SELECT count(*) AS n, count(DISTINCT path) AS p FROM images").to_dicts() == [
            {"n": 79, "p": 79}
        ]
        assert index.verify().ok


def test_a_model_that_came_after_the_models_were_opened_stops_the_update(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    opened = dict(growing.models)
    third = LinearCompute("ab", name="three")
    build(growing.directory, growing.source(), CLASS_IDS, third, SETTINGS)
    growing.labels[300] = "a"
    before = contents(growing.directory.root)
    with pytest.raises(SettingsError, match="three came to this index a moment ago: run the same command again"):
        update(growing.directory, growing.source(), CLASS_IDS, opened, SETTINGS)
    assert contents(growing.directory.root) == before
    growing.models["three"] = third  # type: ignore[assignment]
    assert growing.update().new == 1


def test_a_lost_shard_of_an_update_is_made_again(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    growing.labels |= dict.fromkeys(range(200, 350), "a")
    growing.update()
    before = contents(growing.directory.root)
    assert len(list((tmp_path / "i" / "images").glob("shard-*"))) == 3 + 3
    for lost in ("images/shard-00003", "two/shard-00004"):
        shutil.rmtree(tmp_path / "i" / lost)
        if lost.startswith("images"):
            with pytest.raises(SettingsError, match="run the same `bagindex build` command first"):
                growing.update()
        build(growing.directory, growing.source(), CLASS_IDS, list(growing.models.values()), SETTINGS)
        assert contents(growing.directory.root) == before
    growing.labels[400] = "b"
    growing.update()
    for lost in ("images/shard-00003", "images/shard-00000"):
        kept = tmp_path / "kept"
        shutil.move(tmp_path / "i" / lost, kept)
        with pytest.raises(SourceError, match=r"is lost, and the source has grown since: use --restart"):
            build(growing.directory, growing.source(), CLASS_IDS, list(growing.models.values()), SETTINGS)
        shutil.move(kept, tmp_path / "i" / lost)
    with Index.open(tmp_path / "i") as index:
        assert index.verify().ok


def test_rejects_that_may_have_passed_are_tried_again(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    growing.broken.clear()
    assert growing.update().new == 0
    report = growing.update(retry_rejects=True)
    assert (report.new, report.build.rejects) == (1, {"not_an_image": 1})
    with Index.open(tmp_path / "i") as index:
        assert [row["path"] for row in index.sql("FROM rejects")] == ["0020.png"]
        assert index.sql("SELECT image_id FROM images WHERE path = '0090.png'").to_dicts() == [{"image_id": 10}]
        assert index.verify().ok


def test_rejects_that_were_replaced_are_tried_again(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    growing.broken.clear()
    growing.longer[20] = 5
    report = growing.update()
    assert (report.new, report.build.rejects) == (1, {"permission": 1})
    assert growing.update().new == 0


def test_another_folder_is_not_poured_into_the_index(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    before = contents(growing.directory.root)
    growing.labels = {number + 1000: label for number, label in growing.labels.items()}
    with pytest.raises(SettingsError, match="only 0 of the 8 files that are indexed are here, and 10 others"):
        growing.update()
    assert contents(growing.directory.root) == before
    assert growing.update(accept_missing=True).new == 10


def test_changed_and_missing_files_are_noticed(tmp_path: Path, planted_folder: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(planted_folder / "pictures", pictures)
    index = Index.build(pictures, weights=planted_folder / "bagnet33.safetensors", out=tmp_path / "i", keep="summary")
    data = bytearray((pictures / "fish" / "0000.jpg").read_bytes())
    data[-1] ^= 1
    (pictures / "fish" / "0000.jpg").write_bytes(data)
    (pictures / "tree" / "0001.jpg").unlink()
    shutil.copy(pictures / "tree" / "0002.jpg", pictures / "tree" / "new.jpg")
    quick = index.update(pictures, contents=False)
    assert (quick.new, quick.changed, quick.missing) == (1, (), ("tree/0001.jpg",))
    whole = index.update(pictures)
    assert (whole.new, whole.changed, whole.missing) == (0, ("fish/0000.jpg",), ("tree/0001.jpg",))
    assert len(index.top_patches("tree", k=99)) == 9
    with pytest.raises(SettingsError, match="built from folders by class, and this is pictures without labels"):
        index.update(pictures / "fish")
    assert index.verify().ok


def test_an_index_of_a_part_does_not_grow(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i", limit=4)
    with pytest.raises(SettingsError, match="--limit"):
        growing.update()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_other_labels(tmp_path: Path, ending: str) -> None:
    run(tmp_path / "i")
    before = contents(tmp_path / "i")
    rows = {"path": ["0000.png", "0003.png", "0001.png"], "label": ["b", "a", ""]}
    if ending == "csv":
        (tmp_path / "l.csv").write_text(
            "path,label\n" + "".join(f"{p},{n}\n" for p, n in zip(*rows.values(), strict=True))
        )
    else:
        pq.write_table(pa.table({**rows, "label": ["b", "a", None]}), tmp_path / "l.parquet")
    with Index.open(tmp_path / "i") as index:
        assert index.relabel(tmp_path / f"l.{ending}") == 3
        labels = index.sql("SELECT image_id, label_name, original_label FROM images WHERE image_id < 4").to_dicts()
        assert [tuple(row.values()) for row in labels] == [(0, "b", 0), (1, None, 1), (3, "a", None)]
        assert {p.image_id for p in index.top_patches("a", k=99)} == {3, 5, 7}
        assert index.verify().ok
        after = contents(tmp_path / "i")
        assert {k: v for k, v in before.items() if k != "index.json"}.items() <= after.items()
        index.relabel(None)
        assert {p.image_id for p in index.top_patches("a", k=99)} == {0, 5, 7}
        assert contents(tmp_path / "i") == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nnone.png,a\n", "names 1 images that the index has not: 'none.png'"),
        ("path,label\n0000.png,c\n", "'c'"),
        ("path,label\n0000.png,a\n0000.png,b\n", "twice"),
        ("file,class\n", "needs a first line"),
        ("path,label\n", "names no image"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    run(tmp_path / "i")
    before = contents(tmp_path / "i")
    (tmp_path / "l.csv").write_text(text)
    with Index.open(tmp_path / "i") as index, pytest.raises(LabelError, match=message):
        index.relabel(tmp_path / "l.csv")
    assert contents(tmp_path / "i") == before


def test_labels_take_the_place_of_earlier_ones_or_come_besides(tmp_path: Path) -> None:
    run(tmp_path / "i")
    query = "SELECT image_id, label_name FROM images WHERE image_id < 4 ORDER BY image_id"
    with Index.open(tmp_path / "i") as index:
        assert index.relabelled == 0
        assert index.relabel({"0000.png": "b", "0001.png": None}) == 2
        assert index.relabel({"0003.png": "a", "0001.png": "a"}, add=True) == 2
        assert index.relabelled == 3
        assert index.verify().ok
        assert [tuple(row.values()) for row in index.sql(query)] == [(0, "b"), (1, "a"), (3, "a")]
        noted: list[str] = []
        assert index.relabel({"0003.png": "b"}, note=noted.append) == 1
        assert noted == ["the labels that were given to 2 other images before are gone; --add keeps them"]
        index.relabel({"0003.png": "b"}, note=noted.append)
        assert len(noted) == 1
        assert index.relabelled == 1
        assert [tuple(row.values()) for row in index.sql(query)] == [(0, "a"), (1, "b"), (3, "b")]


def test_removing_a_model(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    with pytest.raises(SettingsError, match="it has one, two"):
        remove_model(growing.directory, "three")
    with Index.open(tmp_path / "i") as index:
        index.remove("one")
        assert index.models == ("two",)
        assert not (tmp_path / "i" / "one").exists()
        assert index.top_patches("a")[0].model == "two"
        assert index.verify().ok
        with pytest.raises(SettingsError, match="only model"):
            index.remove("two")


def test_shards_of_a_removal_that_was_cut_off_are_not_taken_for_new_ones(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    shutil.copytree(tmp_path / "i" / "one", tmp_path / "kept")
    remove_model(growing.directory, "one")
    shutil.move(tmp_path / "kept", tmp_path / "i" / "one")
    other = CountingCompute("ab", name="one", dimensions=2)
    build(growing.directory, growing.source(), CLASS_IDS, other, SETTINGS)
    assert other.images == 8
    with Index.open(tmp_path / "i") as index:
        assert index.verify().ok


def test_removing_an_index(tmp_path: Path) -> None:
    run(tmp_path / "i")
    (tmp_path / "i" / "thesis.txt").write_text("three years of work")
    Index.open(tmp_path / "i").remove()
    assert [path.name for path in (tmp_path / "i").iterdir()] == ["thesis.txt"]
    run(tmp_path / "j")
    Index.open(tmp_path / "j").remove()
    assert not (tmp_path / "j").exists()


def test_a_removal_that_was_cut_off_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(tmp_path / "i")
    (tmp_path / "i" / "mine").mkdir()
    (tmp_path / "i" / "mine" / "shard-notes.txt").write_text("kept")
    (tmp_path / "i" / "mine" / "thesis.txt").write_text("kept")
    with monkeypatch.context() as patch:
        patch.setattr(IndexDirectory, "remove_series", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            remove_model(growing.directory, "one")
    assert (tmp_path / "i" / "one").is_dir()
    remove_model(growing.directory, "one")
    assert not (tmp_path / "i" / "one").exists()
    for name in ("one", "images", "mine", "..", "derived"):
        with pytest.raises(SettingsError, match="it has two"):
            remove_model(growing.directory, name)
    assert (tmp_path / "i" / "mine" / "thesis.txt").exists()
    with monkeypatch.context() as patch:
        patch.setattr("bagindex.store._remove", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            Index.open(tmp_path / "i").remove()
    with Index.open(tmp_path / "i") as index, pytest.raises(IncompleteIndexError):
        index.top_patches("a")
    Index.open(tmp_path / "i").remove()
    assert sorted(path.name for path in (tmp_path / "i").iterdir()) == ["mine"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_index_json_holds_no_absolute_path(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    growing.labels[5] = "a"
    growing.update()
    assert str(tmp_path) not in json.dumps(json.loads((tmp_path / "i" / "index.json").read_text()))
