"""What models are compared with: networks that run here, and predictions that were brought."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_file

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.errors import LabelError, NotKeptError, QueryError
from bagindex.experiments import against
from bagindex.experiments.brought import read_predictions
from bagindex.experiments.experiment import Setting
from bagindex.experiments.predicted import AT_ONCE
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource, number_png
from test_model import procedural_model

CLASSES = ("dog", "cat", "bird")
IMAGES = 4


def setting(tmp_path: Path, pixels: bool = True) -> Setting:
    """An index of four pictures, and what an experiment on it is given."""
    compute = LinearCompute(CLASSES)
    source = MemorySource(["dog", "cat", "dog", None])
    directory = IndexDirectory(tmp_path / "index")
    build(directory, source, {"dog": 0, "cat": 1, "bird": 2}, [compute], BuildSettings(pixels=pixels))
    index = Index.open(tmp_path / "index")
    return Setting(
        index=index,
        catalog=index._catalog,
        models=("linear",),
        image_ids=np.arange(IMAGES),
        limit=None,
        against=(),
        predictions=(),
        device="cpu",
        seed=0,
        folder=tmp_path / "out",
        progress=lambda _what, _done, _total: None,
        note=lambda _text: None,
    )


@pytest.fixture
def bagnet_file(tmp_path: Path) -> Path:
    """Weights of a narrow BagNet-9 for the index's classes, in another order."""
    file = tmp_path / "b.safetensors"
    state = procedural_model("bagnet9", 3, 0.0625).state_dict()
    save_file(dict(state), file, {"classes": json.dumps(["cat", "dog", "bird"])})
    return file


def test_a_network_runs_on_what_is_stored(tmp_path: Path, bagnet_file: Path) -> None:
    given = replace(setting(tmp_path), against=(f"bagnet9={bagnet_file}",))
    (found,) = against.predictions(given)
    (network,) = against.networks(given)
    assert network.places == (1, 0, 2)
    assert (found.name, found.image_ids.tolist()) == ("bagnet9", [0, 1, 2, 3])
    assert found.logits is not None
    assert found.logits.shape == (IMAGES, 3)
    assert AT_ONCE["cpu"] > IMAGES
    assert len(list((tmp_path / "out" / "networks").rglob("*.parquet"))) == 1


def test_where_no_pixels_are_kept_the_source_is_read_again(tmp_path: Path, bagnet_file: Path) -> None:
    asked = (f"bagnet9={bagnet_file}",)
    (expected,) = against.predictions(replace(setting(tmp_path / "with"), against=asked))
    given = replace(setting(tmp_path / "without", pixels=False), against=asked)
    with pytest.raises(NotKeptError, match=r"keeps no pixels to run a network on: .* --source SOURCE"):
        against.predictions(given)
    for number in range(IMAGES):
        (tmp_path / f"{number:04d}.png").write_bytes(number_png(number, 16))
    (found,) = against.predictions(replace(given, source=tmp_path))
    np.testing.assert_array_equal(found.logits, expected.logits)  # type: ignore[arg-type]


def test_networks_whose_weights_name_no_classes_get_them(tmp_path: Path, bagnet_file: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file(dict(procedural_model("bagnet9", 3, 0.0625).state_dict()), bare)
    given = replace(setting(tmp_path), against=(f"bagnet9={bare}",))
    with pytest.raises(LabelError, match="does not name its 3 classes"):
        against.networks(given)
    (tmp_path / "classes.txt").write_text("bird\ncat\ndog\n")
    (network,) = against.networks(replace(given, class_list=str(tmp_path / "classes.txt")))
    assert network.places == (2, 1, 0)


def test_a_network_is_not_called_like_a_model_of_the_index(planted_index: Index, tmp_path: Path) -> None:
    weights = f"{planted_index.path}/bagnet33/model.safetensors"
    with pytest.raises(QueryError, match=r"a model of the index is called bagnet33: .* as in other=FILE"):
        planted_index.reproduce("correlation", tmp_path, against=[f"bagnet33={weights}"], limit=2)
    (outcome,) = planted_index.reproduce("correlation", tmp_path, against=[f"other={weights}"], limit=2).outcomes
    assert outcome.tables["correlation"].to_pylist()[0]["pearson_all"] == pytest.approx(1, abs=1e-6)


def test_nothing_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="nothing to compare with: give --against vgg16"):
        against.predictions(setting(tmp_path))
    with pytest.raises(QueryError, match="a texture needs a network to compare with"):
        against.needed_networks(setting(tmp_path), "a texture")


LOGITS = [[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.5]]


def test_predictions_that_were_brought_as_logits(tmp_path: Path) -> None:
    paths = [f"{number:04d}.png" for number in range(IMAGES)]
    parquet, csv = tmp_path / "vgg.parquet", tmp_path / "vgg.csv"
    pq.write_table(pa.table({"path": paths[::-1], "logits": LOGITS[::-1]}), parquet)
    csv.write_text("path,logits\n" + "".join(f'{p},"{row}"\n' for p, row in zip(paths, LOGITS, strict=True)))
    given = setting(tmp_path)
    for file in (parquet, csv):
        found = read_predictions(file, given)
        assert (found.name, found.published) == ("vgg", False)
        np.testing.assert_array_equal(found.logits, np.array(LOGITS, np.float32))  # type: ignore[arg-type]
        assert found.predicted.tolist() == [1, 0, 2, 0]
    with pytest.raises(QueryError, match="two predictions are called 'vgg'"):
        against.predictions(replace(given, predictions=(parquet, csv)))


@pytest.mark.parametrize(
    ("text", "top"),
    [
        ("predicted\n0,dog\n1,cat\n2,2\n3,bird\n", [[0], [1], [2], [2]]),
        (
            'top5\n0,"[1, 0]"\n1,"[""cat"", ""dog""]"\n2,"[2, 0]"\n3,"[0, 1]"\n',
            [[1, 0], [1, 0], [2, 0], [0, 1]],
        ),
    ],
)
def test_predictions_that_were_brought_as_classes(text: str, top: list[list[int]], tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text(f"image_id,{text}")
    found = read_predictions(tmp_path / "other.csv", setting(tmp_path))
    assert found.logits is None
    assert found.top5.tolist() == top
    assert found.predicted.tolist() == [row[0] for row in top]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,predicted\n0,dog\n", "needs a column path or image_id, and one of logits, top5 and predicted"),
        ("image_id,class\n0,dog\n", "needs a column path or image_id"),
        ("image_id,predicted\n0,dog\n2,dog\n3,cat\n", "has no prediction for 1, and lacks 1 of 4 images"),
        ("image_id,predicted\n0,dog\n1,cat\n2,dog\n3,cat\n3,dog\n", "has several rows of one image"),
        ("image_id,predicted\n0,dog\n1,cow\n2,dog\n3,cat\n", "has other classes than the index: no class .* 'cow'"),
        ("image_id,predicted\n0,dog\n1,9\n2,dog\n3,cat\n", "has other classes than the index"),
        ('image_id,logits\n0,"[1,2]"\n1,"[1,2]"\n2,"[1,2]"\n3,"[1,2]"\n', "a list of 3 finite numbers"),
        ('image_id,logits\n0,"[1,2,3]"\n1,"[1,2]"\n2,"[1,2]"\n3,"[1,2]"\n', "cannot be understood"),
        ("image_id,logits\n0,5\n1,5\n2,5\n3,5\n", "'5' is no list"),
        ("image_id,logits\n0,[1\n", "is not a CSV file|has no prediction"),
    ],
)
def test_files_that_are_no_predictions(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(QueryError, match=message):
        read_predictions(tmp_path / "p.csv", setting(tmp_path))


def test_predictions_of_an_index_are_read_as_they_are_written(tmp_path: Path, planted_index: Index) -> None:
    """What `bagindex sql` gives of one index are predictions for another."""
    file = tmp_path / "again.csv"
    planted_index.sql("SELECT path, logits FROM predictions").save(file)
    rows = planted_index.sql("SELECT image_id, predicted FROM predictions ORDER BY image_id").to_dicts()
    given = replace(
        setting(tmp_path),
        index=planted_index,
        catalog=planted_index._catalog,
        image_ids=np.array([row["image_id"] for row in rows]),
    )
    found = read_predictions(file, given)
    assert found.predicted.tolist() == [row["predicted"] for row in rows]
