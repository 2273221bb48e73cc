"""The page in a browser: a picture of one's own."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from bagindex import Index
from bagindex.demo import DemoReport
from bagindex.maps import PictureBytes
from browsing_page import Watch, check_drawn, patches, percent, pixels, query_of, settled, shown, texts, visit

_HAND_OVER = """([data, name, kind, how]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  transfer.items.add(new File([bytes], name, { type: kind }));
  const given = { bubbles: true, cancelable: true };
  const target = document.querySelector("h1");
  if (how === "paste") return target.dispatchEvent(new ClipboardEvent(how, { ...given, clipboardData: transfer }));
  return target.dispatchEvent(new DragEvent(how, { ...given, dataTransfer: transfer }));
}"""


@pytest.fixture(scope="module")
def picture() -> PictureBytes:
    """A picture that is in no index."""
    rng = np.random.default_rng(3)
    data = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (20, 28, 3), dtype=np.uint8)).resize((420, 300)).save(data, "PNG")
    return PictureBytes("mine.png", data.getvalue())


def hand_over(page: Page, picture: PictureBytes, how: str) -> bool:
    """Drop or paste a picture; whether the browser would still do something of its own with it."""
    data = base64.b64encode(picture.data).decode()
    return bool(page.evaluate(_HAND_OVER, [data, picture.name, "image/png", how]))


def check_seen(page: Page, index: Index, picture: PictureBytes) -> None:
    """The page shows what the model sees in a picture."""
    settled(page)
    found = index.heatmap(picture)
    main = page.get_by_role("main")
    expect(main.get_by_role("heading", level=2)).to_have_text(
        f"{found.predicted.name} {percent(found.top[0].probability)}"
    )
    check_drawn(main.locator(".picture canvas"), found.values[0], float(found.limits[0]))
    np.testing.assert_array_equal(pixels(main.locator(".picture img"))[..., :3], index.input_of(picture))


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_is_handed_over_anywhere(page: Page, asked: Index, picture: PictureBytes, how: str) -> None:
    visit(page, "/confusions")
    if how == "drop":
        assert hand_over(page, picture, "dragover") is False
        expect(page.get_by_text("Drop the picture: what does the model see in it?")).to_be_visible()
    assert hand_over(page, picture, how) is False
    expect(page.get_by_role("heading", level=1)).to_have_text("Your picture")
    assert page.url.endswith("/picture")
    expect(page.locator(".drop")).to_have_count(0)
    check_seen(page, asked, picture)


def test_a_picture_is_chosen(page: Page, asked: Index, picture: PictureBytes) -> None:
    visit(page, "/picture")
    field = page.get_by_label("Choose a picture")
    field.set_input_files({"name": "mine.png", "mimeType": "image/png", "buffer": picture.data})
    check_seen(page, asked, picture)
    # Why, and what else it might be.
    found = asked.heatmap(picture)
    chips = page.get_by_role("group", name="Show evidence for").locator("a.chip")
    assert texts(chips) == [f"{each.class_.name} {percent(each.probability)}" for each in found.top]
    other = found.top[1].class_.name
    why = asked.why(picture, vs=f"{found.predicted.name},{other}", k=4).to_dict()
    expect(page.get_by_text(why["said"])).to_be_visible()
    numbers = texts(page.locator("section.for .tile .number, section.against .tile .number"))
    parts = [part for part in why["parts"] if part["what"] == "patch"]
    in_order = [part for side in ("for", "against") for part in parts if part["side"] == side]
    assert numbers == [shown(part["contribution"], 3, sign=True) for part in in_order]
    x0, y0, x1, y1 = in_order[0]["box"]
    crop = pixels(page.locator("section.for .tile canvas").first)
    np.testing.assert_array_equal(crop[..., :3], asked.input_of(picture)[y0:y1, x0:x1])
    chips.nth(1).click()
    settled(page)
    assert query_of(page) == {"show": [other]}
    against = asked.heatmap(picture, classes=[other])
    check_drawn(page.locator(".picture canvas"), against.values[0], float(against.limits[0]))
    # A second picture takes the first one's place.
    turned = io.BytesIO()
    with Image.open(io.BytesIO(picture.data)) as first:
        first.rotate(180).save(turned, "PNG")
    visit(page, "/picture")
    for each in (picture, PictureBytes("mine.png", turned.getvalue())):
        field.set_input_files({"name": "mine.png", "mimeType": "image/png", "buffer": each.data})
        check_seen(page, asked, each)


def test_what_in_the_index_looks_like_a_place_in_it(page: Page, asked: Index, picture: PictureBytes) -> None:
    visit(page, "/picture")
    hand_over(page, picture, "drop")
    settled(page)
    seen = page.locator("#main .picture.live")  # the panel has one, too, once its picture is there
    box = seen.bounding_box()
    assert box is not None
    row, col = 5, 9
    scale = box["width"] / 160
    seen.click(position={"x": (8 * col + 16.5) * scale, "y": (8 * row + 16.5) * scale})
    expect(seen.locator("rect.box")).to_have_attribute("x", str(8 * col))
    expect(seen.locator("rect.box")).to_have_attribute("y", str(8 * row))
    expect(page.get_by_role("list", name="Similar patches").get_by_role("listitem")).to_have_count(12)
    # Of 420 × 300 pixels, the middle 7/8 of 300 are the model's input of 160 × 160.
    left, top, side = (420 - 262.3) / 2, (300 - 262.3) / 2, 262.3
    at = (left + (8 * col + 16.5) * side / 160, top + (8 * row + 16.5) * side / 160)
    found = asked.similar(image=picture, at=at, k=12)
    assert patches(page, "Similar patches") == [each.patch_id for each in found]
    page.get_by_role("list", name="Similar patches").get_by_role("link").first.click()
    expect(page.get_by_role("complementary", name="Patch")).to_be_visible()
    expect(seen).to_be_visible()  # beside it the picture stays


def test_a_picture_of_the_index_is_known(page: Page, asked: Index, demo_report: DemoReport) -> None:
    about = asked.image(11)
    data = (demo_report.pictures / about["path"]).read_bytes()
    visit(page, "/picture")
    hand_over(page, PictureBytes("other-name.jpg", data), "drop")
    page.get_by_role("link", name=about["path"]).click()
    expect(page.get_by_role("complementary", name="Image")).to_be_visible()
    assert query_of(page)["image"] == ["11"]


def test_what_is_no_picture_is_said(page: Page, watch: Watch, asked: Index, picture: PictureBytes) -> None:
    watch.expects(422)
    visit(page, "/picture")
    hand_over(page, PictureBytes("notes.txt", b"these are no pixels"), "drop")
    expect(page.get_by_role("alert")).to_contain_text("notes.txt")
    hand_over(page, picture, "drop")  # the next one is looked at
    check_seen(page, asked, picture)


def test_a_picture_that_is_too_large_is_said(page: Page, watch: Watch, tmp_path: Path) -> None:
    watch.expects(413)
    visit(page, "/picture")
    Image.new("1", (8000, 6000)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(bytes(21_000_000))
    field = page.get_by_label("Choose a picture")
    field.set_input_files(tmp_path / "a.png")
    expect(page.get_by_role("alert")).to_contain_text("8000 x 6000 is over 40,000,000 pixels")
    watch.expects_silence()  # the service does not wait for the rest of it
    field.set_input_files(tmp_path / "b.png")
    expect(page.get_by_role("alert")).to_contain_text("20,")
