"""`bagindex build imagenet-val`: the official weights are fetched, ImageNet is read as people have it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from bagindex import Index, fetching
from bagindex.errors import LabelError, SettingsError, SourceError, WeightsError
from bagindex.registry import ARCHITECTURES
from test_imagenet import LABELS, LAYOUTS, as_folders, as_tar
from test_model import UNPADDED, procedural_model


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A server with narrow stand-ins of the official weights, in the authors' format; their files' names by model."""
    folder = tmp_path_factory.mktemp("mirror")
    names = {}
    for model in UNPADDED:
        path = folder / "new"
        torch.save({"state_dict": {f"module.{k}": v for k, v in narrow(model).items()}}, path)
        names[model] = f"{model}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth.tar"
        path.rename(folder / names[model])
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", names
        server.shutdown()
        thread.join()


def narrow(model: str) -> dict[str, torch.Tensor]:
    return procedural_model(model, 1000, width=0.0625).state_dict()


@pytest.fixture
def _published(mirror: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, names = mirror
    monkeypatch.setenv("BAGINDEX_WEIGHTS_URL", url)
    monkeypatch.setattr(fetching, "_BACK_OFF", ())
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for model, file in names.items():
        monkeypatch.setitem(ARCHITECTURES, model, dataclasses.replace(ARCHITECTURES[model], weights_file=file))


@pytest.mark.usefixtures("_published")
def test_the_missions_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAGINDEX_IMAGENET", str(as_tar(tmp_path / "imagenet")))
    index = Index.build("imagenet-val", image_size=64)
    assert index.path.name == "imagenet-val"
    assert index.models == ("bagnet33",)
    assert len(index.classes) == 1000
    rows = index.sql("SELECT path, wnid FROM images JOIN classes ON class_id = label ORDER BY path").to_dicts()
    assert [row["wnid"] for row in rows] == list(LABELS)
    assert {patch.label_name for patch in index.top_patches("n01440764")} == {"tench"}
    assert len(index.top_patches("tench", wrong_class=True)) == 4
    assert index.verify().ok
    assert Index.build("imagenet-val", image_size=64).build_report.computed == 0  # type: ignore[union-attr]


@pytest.mark.usefixtures("_published")
def test_three_models_in_one_pass_and_every_layout_the_same(tmp_path: Path) -> None:
    evidence = set()
    for number, make in enumerate(dict(LAYOUTS).values()):
        data = make(tmp_path / str(number))
        index = Index.build(
            "imagenet-val",
            data=data,
            model=UNPADDED,
            image_size=40,
            keep="summary",
            pixels=False,
            batch_size=1,  # in another order the batches are others, and float32 sums differ in the last place
            out=tmp_path / f"index{number}",
        )
        rows = index.sql(
            "SELECT e.model, e.class_id, regexp_extract(path, '[0-9]{8}[.]JPEG') AS n, e.label, max_logit, mean_logit "
            "FROM image_evidence AS e JOIN images USING (image_id) ORDER BY ALL"
        )
        assert len(rows) == 3 * 1000 * 6
        evidence.add(hashlib.sha256(json.dumps(rows.to_dicts()).encode()).hexdigest())
    assert len(evidence) == 1


@pytest.mark.usefixtures("_published")
def test_train_split(tmp_path: Path) -> None:
    data = as_folders(tmp_path / "d")
    index = Index.build("imagenet-val", data=data, split="train", model="bagnet9", image_size=40, keep="summary")
    assert index.path.name == "imagenet-train"
    assert index.info().images == 4


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="BAGINDEX_IMAGENET"):
        Index.build("imagenet-val")
    with pytest.raises(SettingsError, match="leave out --data: a folder of pictures takes"):
        Index.build(tmp_path, data=tmp_path)
    with pytest.raises(SettingsError, match="leave out --layout"):
        Index.build("imagenet-val", layout="flat")
    with pytest.raises(WeightsError, match="--model"):
        Index.build(as_folders(tmp_path / "d") / "val")
    monkeypatch.setenv("BAGINDEX_WEIGHTS_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(WeightsError, match=r"bring bagnet8-34f4ccd2\.pth\.tar .*`bagindex weights install"):
        Index.build("imagenet-val", data=tmp_path / "d", model="bagnet9")


@pytest.mark.usefixtures("_published")
def test_official_weights_with_pictures_of_ones_own(tmp_path: Path, planted_folder: Path) -> None:
    with pytest.raises(LabelError, match="--class-map"):
        Index.build(planted_folder / "pictures", model="bagnet9")
    (tmp_path / "map.csv").write_text("source,class\nfish,tench\ntree,n01443537\nchain,\nroof,\nseam,\ntext,\n")
    index = Index.build(
        planted_folder / "pictures",
        model="bagnet9",
        class_map=tmp_path / "map.csv",
        image_size=64,
        out=tmp_path / "i",
        keep="summary",
    )
    rows = index.sql("SELECT label_name, count(*) AS n FROM images GROUP BY 1 ORDER BY 1 NULLS LAST").to_dicts()
    assert [tuple(row.values()) for row in rows] == [("goldfish", 8), ("tench", 8), (None, 32)]
