"""Figure 3: what stands in it, as a picture, a drawing, pages and a page."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.errors import OutputError, QueryError, UnknownClassError
from bagindex.figures import figure3
from bagindex.figures.figure3 import Row, Strip, Tile, common_side
from bagindex.figures.style import RIGHT, WRONG
from bagindex.figures.text import printable
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from fakes import LinearCompute, MemorySource
from looks import look_at
from pages import Page

HOSTILE = ("<script>alert('x')</script>", "\"quoted\" & 'so' on\x1b[0m", "Größe 中文 🐟 " + "very long " * 40)


def make(folder: Path, labels: list[str | None], classes: tuple[str, ...] = HOSTILE, pixels: bool = True) -> Index:
    """An index of one-coloured pictures of 16 × 16 pixels, whose evidence is a table of numbers."""
    table = np.random.default_rng(4).normal(0, 3, (len(labels), 4, len(classes))).astype(np.float32)
    settings = BuildSettings(keep=Keep.EVIDENCE, pixels=pixels, workers=1)
    ids = {name: i for i, name in enumerate(classes)}
    build(IndexDirectory(folder), MemorySource(labels), ids, LinearCompute(classes, table=table), settings)
    return Index.open(folder)


def tiles(count: int, q: int, lines: tuple[str, ...]) -> list[Tile]:
    rng = np.random.default_rng(q)
    smooth = np.sin(np.arange(q)[:, None] / 5 + np.arange(q) / 3)[..., None] * (80, 60, 90) + (120, 140, 110)
    return [Tile((smooth + rng.integers(0, 40, (q, q, 3))).astype(np.uint8), lines) for _ in range(count)]


def example() -> list[Row]:
    """Two classes, models of 9, 17 and 33 pixels, and what is missing."""
    right = [Strip(tiles(3, q, ("7.25",))) for q in (9, 17, 33)]
    wrong = [
        Strip(tiles(3, 9, ("hat", "6.50"))),
        Strip([], "no image of another class"),
        Strip(tiles(1, 33, ("a" * 40, "−1")), "no more images"),
    ]
    return [Row(name, right, wrong) for name in ("dress", "American Staffordshire terrier")]


def read(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_looks_as_it_did() -> None:
    look_at(figure3.to_png(example(), ["bagnet9", "bagnet17", "bagnet33"]), "figure3")


@pytest.mark.parametrize(("q", "factor"), [(33, 7), (17, 14), (9, 26)])
def test_every_pixel_stands_in_the_picture(q: int, factor: int) -> None:
    first, second, third = tiles(3, q, ("1.00",))
    pixels = read(figure3.to_png([Row("a", [Strip([first, second, second] * 2)], [Strip([third])])], ["model"]))
    for tile, colour, count in ((first, RIGHT, 2), (second, RIGHT, 4), (third, WRONG, 1)):
        block = tile.pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        side = len(block)
        places = [
            (y, x)
            for y, x in np.argwhere((pixels == block[0, 0]).all(axis=2)).tolist()
            if np.array_equal(pixels[y : y + side, x : x + side], block)
        ]
        assert len(places) == count
        border = tuple(bytes.fromhex(colour[1:]))
        for y, x in places:
            assert {tuple(pixels[y - 1, x]), tuple(pixels[y + side, x]), tuple(pixels[y, x - 1])} == {border}


@pytest.mark.parametrize("fields", [{33}, {9, 17, 33}, {9}, {17}, {8}, {1}, {500}, set()])
@pytest.mark.parametrize("wanted", [98, 122, 233])
def test_common_side(fields: set[int], wanted: int) -> None:
    side = common_side(fields, wanted)
    assert side >= max(fields, default=0)
    if max(fields, default=0) < 40:
        assert 0.75 * wanted - 1 <= side <= 1.15 * wanted
        assert all(side % field <= 0.04 * side for field in fields)


def test_printable() -> None:
    assert printable("a\n\tb\x00\x1b[0m \ud800") == "a b\ufffd\ufffd[0m \ufffd"


def test_what_stands_in_it(planted_index: Index) -> None:
    figure = planted_index.figure3(["fish", "2", "FISH"], k=3)
    assert [record.name for record in figure.classes] == ["fish", planted_index.classes[2].name]
    assert figure.models == ("bagnet33",)
    assert [(row.class_.name, row.right) for row in figure] == [
        (record.name, right) for record in figure.classes for right in (True, False)
    ]
    for row in figure:
        same = planted_index.top_patches(row.class_.class_id, wrong_class=not row.right, k=3)
        assert row.patches.patches == same.patches
        assert not row.remark
    everything = planted_index.figure3(k=20)
    assert everything.classes == planted_index.classes
    assert {(len(row.patches), row.remark) for row in everything if row.right} == {(8, "no more images")}
    with pytest.raises(KeyError):
        figure.subrow(planted_index.find_class("tree"), "bagnet33", True)


def test_same_bytes_twice(planted_index: Index) -> None:
    first, second = (planted_index.figure3(["fish"], k=2) for _ in range(2))
    assert first.to_png() == second.to_png() == first._repr_png_()
    assert first.to_svg() == second.to_svg()
    assert first.to_pdf() == second.to_pdf()
    assert first.to_html() == second.to_html()
    framed = first._repr_html_()
    assert framed.startswith("<iframe srcdoc=")
    assert framed.count("base href=&quot;about:srcdoc&quot;") == 1


def test_files(planted_index: Index, tmp_path: Path) -> None:
    figure = planted_index.figure3(["fish", "tree"])
    for ending in ("png", "svg", "html", "pdf"):
        figure.save(tmp_path / f"a.{ending}")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"fish", "tree", "bagnet33", "right class", "wrong class"} <= texts
    assert f"{figure.subrows[0].patches[0].logit:.2f}" in texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}image"))) == 28
    assert 1900 < read((tmp_path / "a.png").read_bytes()).shape[1] <= 2100
    with pytest.raises(OutputError, match=r"\.png, \.svg, \.html, \.pdf"):
        figure.save(tmp_path / "a.jpg")


def test_page(planted_index: Index) -> None:
    figure = planted_index.figure3(["fish", "tree"])
    text = figure.to_html()
    page = Page(text)
    patches = [patch for row in figure for patch in row.patches]
    assert len(patches) == 28
    assert {f"p{n}" for n in range(1, 29)} | {f"f{n}" for n in range(1, 29)} <= set(page.ids)
    crops = [crop for row in figure for crop in row.patches.crops()]
    shown = [uri for uri in page.images if uri.startswith("data:image/png")]
    for crop, uri in zip(crops, shown, strict=True):
        assert np.array_equal(read(base64.b64decode(uri.partition(",")[2])), crop)
    assert sum(uri.startswith("data:image/jpeg") for uri in page.images) == len({p.image_id for p in patches})
    sections = text.split('<section class="detail ')[1:]
    for number, (patch, section) in enumerate(zip(patches, sections, strict=True), start=1):
        assert f'id="p{number}"' in section
        assert f'href="#i{patch.image_id}"' in section
        for value in (
            *(f"{patch.logit:.2f}", patch.label_name, patch.predicted_name, patch.path, patch.image_id, patch.patch_id),
            *(", ".join(map(str, patch.box)), ", ".join(f"{edge:.1f}" for edge in patch.source_box)),
        ):
            assert f"<dd>{value}</dd>" in section
    assert page.tags["script"] == 0


def test_hostile_names(tmp_path: Path) -> None:
    with make(tmp_path / "index", [*HOSTILE] * 3) as index:
        figure = index.figure3()
        text = figure.to_html()
        page = Page(text)
        assert page.tags["script"] == 0
        assert HOSTILE[0] in page.text
        assert "\x1b" not in text
        ElementTree.fromstring(figure.to_svg())
        read(figure.to_png())
        assert figure.to_pdf().startswith(b"%PDF-")


def test_nothing_to_show(tmp_path: Path) -> None:
    with make(tmp_path / "one", ["a", "a"], ("a", "b")) as index:
        figure = index.figure3()
        assert [(len(row.patches), row.remark) for row in figure] == [
            *[(2, "no more images"), (0, "no image of another class")],
            *[(0, "no image of this class"), (2, "no more images")],
        ]
        assert {"no more images", "no image of another class", "no image of this class"} <= set(
            Page(figure.to_html()).text
        )
        assert "no image of" in figure.to_svg().decode()
        read(figure.to_png())
    with make(tmp_path / "none", [None, None]) as index:
        assert {row.remark for row in index.figure3()} == {"no image has a label"}
        read(index.figure3(k=1).to_png())


def test_what_cannot_be(planted_index: Index, tmp_path: Path) -> None:
    with pytest.raises(UnknownClassError):
        planted_index.figure3(["fsh"])
    with pytest.raises(QueryError, match="no model"):
        planted_index.figure3(models=["vgg16"])
    with pytest.raises(QueryError, match="-k"):
        planted_index.figure3(k=0)
    with make(tmp_path / "many", ["0"], tuple(map(str, range(21)))) as index:
        with pytest.raises(QueryError, match="name those"):
            index.figure3()
        assert len(index.figure3(["3", "20"]).classes) == 2
    with (
        make(tmp_path / "blind", ["a", "b"], ("a", "b"), pixels=False) as index,
        pytest.raises(QueryError, match="--pixels"),
    ):
        index.figure3().to_png()
    many = [Row("a", [Strip(tiles(1, 9, ("1",)))], [Strip([])])] * 200
    with pytest.raises(OutputError, match="too large"):
        figure3.to_png(many, ["a"])


def test_pages_of_a_pdf() -> None:
    rows = [Row(str(n), [Strip(tiles(2, 33, ("1",)))], [Strip([], "none")]) for n in range(12)]
    pages = len(re.findall(rb"/Type /Page\b", figure3.to_pdf(rows, ["a"])))
    assert 2 <= pages <= 6
    assert len(re.findall(rb"/Type /Page\b", figure3.to_pdf(rows[:1], ["a"]))) == 1


def test_command(planted_index: Index, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "fig3.html"
    done = run("figure3", "fish", "-k", 2, "--model", "bagnet33", "-i", planted_index.path, "-o", target)
    assert (done.status, done.out) == (0, "")
    assert f"wrote {target}" in done.err
    assert target.read_text() == planted_index.figure3(["fish"], k=2).to_html()
    wrong = run("figure3", "-i", planted_index.path, "-o", tmp_path / "fig3.tiff")
    assert wrong.status == 1
    assert ".png, .svg, .html, .pdf" in wrong.err
    assert run("figure3", "fish", "-i", planted_index.path).status == 2
