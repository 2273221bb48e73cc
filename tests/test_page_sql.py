"""The page in a browser: asking in SQL."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Locator, Page, expect

from bagindex import Index
from browsing_page import Watch, query_of, settled, texts, visit
from serving import Running

PATCHES = "SELECT patch_id, image_id, label_name, max_logit FROM image_evidence WHERE class = 'fish' AND NOT correct"
QUERY = f"{PATCHES} ORDER BY max_logit DESC, patch_id LIMIT 12"


def result(page: Page) -> Locator:
    """The table of the answer."""
    return page.get_by_role("region", name="Result, scrolls sideways").get_by_role("table")


def check_rows(page: Page, table: pa.Table) -> None:
    """The page's table shows the first rows of an answer of the index."""
    assert texts(result(page).get_by_role("columnheader")) == table.column_names
    shown = [texts(row.get_by_role("cell")) for row in result(page).locator("tbody tr").all()]
    expected = [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    assert len(shown) == min(len(expected), 100)
    for cells, values in zip(shown, expected[:100], strict=True):
        for cell, value in zip(cells, values, strict=True):
            check_cell(cell, value)


def check_cell(cell: str, value: Any) -> None:
    """A cell says a value."""
    if value is None:
        assert cell == "null"
    elif isinstance(value, bool):
        assert cell == str(value).lower()
    elif isinstance(value, float):
        assert float(cell) == float(f"{value:.8g}")
    elif isinstance(value, list | dict):
        assert json.loads(cell) == value
    else:
        assert cell == " ".join(str(value).split())


def test_the_tables_and_what_they_hold_stand_on_the_side(page: Page, asked: Index, site: Running) -> None:
    visit(page, "/sql")
    tables = site.json("/tables")["tables"]
    side = page.get_by_role("region", name="Tables and examples")
    named = side.locator("details")
    expect(named).to_have_count(len(tables))
    names = [each["name"] + ("()" if each["kind"] == "macro" else "") for each in tables]
    assert texts(named.locator("summary")) == names
    for each in tables[:3]:
        one = named.nth(tables.index(each))
        one.locator("summary").click()
        expect(one).to_contain_text(each["about"])
        assert texts(one.locator("li code")) == [column["name"] for column in each["columns"]]
        if each["kind"] != "macro":
            found = asked.sql(f"SELECT * FROM {each['name']} LIMIT 0").to_arrow().column_names
            assert [column["name"] for column in each["columns"]] == found


def test_a_column_is_written_where_one_writes(page: Page) -> None:
    visit(page, "/sql")
    field = page.get_by_role("textbox", name="Query")
    field.fill("SELECT  FROM images")
    field.evaluate("field => field.setSelectionRange(7, 7)")
    images = page.locator("details").filter(has=page.get_by_text("images", exact=True)).first
    images.locator("summary").click()
    images.get_by_role("button", name="image_id", exact=True).click()
    expect(field).to_have_value("SELECT image_id FROM images")
    expect(field).to_be_focused()
    page.wait_for_function("() => document.activeElement.selectionStart === 15")


def test_every_example_runs_and_shows_what_the_index_answers(page: Page, asked: Index, site: Running) -> None:
    examples = site.json("/tables")["examples"]
    assert len(examples) >= 5
    visit(page, "/sql")
    for each in examples:
        page.get_by_role("button", name=each["title"], exact=True).click()
        expect(page.get_by_role("textbox", name="Query")).to_have_value(each["sql"])
        expected = asked.sql(each["sql"]).to_arrow()
        rows = "1 row" if expected.num_rows == 1 else f"{expected.num_rows:,} rows"
        expect(page.get_by_text(f"{rows}, ", exact=False)).to_be_visible()
        expect(result(page).get_by_role("columnheader")).to_have_text(expected.column_names)
        settled(page)
        check_rows(page, expected)
        assert query_of(page)["q"] == [each["sql"]]


def test_patches_and_images_are_shown_as_pictures_and_open(page: Page, asked: Index) -> None:
    visit(page, "/sql", q=QUERY)
    expected = asked.sql(QUERY).to_arrow()
    check_rows(page, expected)
    ids = expected["patch_id"].to_pylist()
    pictures = result(page).locator("img").evaluate_all("images => images.map((each) => each.getAttribute('src'))")
    images = expected["image_id"].to_pylist()
    for place, (patch, image) in enumerate(zip(ids, images, strict=True)):
        assert pictures[2 * place].startswith(f"/api/v1/patches/{patch}.png")
        assert pictures[2 * place + 1].startswith(f"/api/v1/images/{image}.png")
    loaded = result(page).locator("img").evaluate_all("images => images.map((each) => each.naturalWidth)")
    assert loaded[:2] == [33, 160]
    result(page).get_by_role("link").first.click()
    panel = page.get_by_role("complementary", name="Patch")
    row, col = divmod(ids[0] % asked.model_records()[0].grid.patches, asked.model_records()[0].grid.cols)
    expect(panel.get_by_text(f"row {row}, column {col};")).to_be_visible()
    page.keyboard.press("Escape")
    result(page).get_by_role("link").nth(1).click()
    expect(page.get_by_role("complementary", name="Image")).to_be_visible()
    assert query_of(page)["image"] == [str(images[0])]


def test_one_asks_by_the_button_and_by_the_keyboard(page: Page) -> None:
    visit(page, "/sql")
    field = page.get_by_role("textbox", name="Query")
    expect(page.get_by_role("button", name="Run")).to_be_disabled()
    field.fill("SELECT 1 AS a")
    page.get_by_role("button", name="Run").click()
    expect(result(page).get_by_role("cell")).to_have_text("1")
    field.fill("SELECT 2 AS a")
    field.press("Control+Enter")
    expect(result(page).get_by_role("cell")).to_have_text("2")
    with page.expect_response(lambda response: response.url.endswith("/sql?index=index")):
        page.get_by_role("button", name="Run").click()  # once more
    page.go_back()
    page.go_back()
    expect(field).to_have_value("SELECT 1 AS a")
    expect(result(page).get_by_role("cell")).to_have_text("1")


def test_values_of_all_kinds(page: Page, asked: Index) -> None:
    query = (
        "SELECT NULL AS nothing, true AS yes, [1, 2] AS many, {'a': 'b'} AS pair, 0.1::DOUBLE AS tenth, "
        "-2.5::FLOAT AS f, '<img src=x onerror=\"document.title=1\">' AS \"<b>x</b>\", '' AS empty, "
        "-3 AS patch_id, 1e300::DOUBLE AS large, 9007199254740993 AS precise, date '2024-02-03' AS day, 1 AS a, 2 AS a"
    )
    visit(page, "/sql", q=query)
    assert texts(result(page).get_by_role("columnheader"))[-8:] == [
        *("<b>x</b>", "empty", "patch_id", "large", "precise", "day", "a", "a_2")
    ]
    assert texts(result(page).get_by_role("cell")) == [
        *("null", "true", "[1,2]", '{"a":"b"}', "0.1", "-2.5", '<img src=x onerror="document.title=1">', "", "-3"),
        *("1e+300", "9007199254740993", "2024-02-03", "1", "2"),
    ]
    expect(result(page).locator("img")).to_have_count(0)


def test_what_is_wrong_with_a_query_is_said(page: Page, watch: Watch) -> None:
    watch.expects(422)
    for query, said in (
        ("SELECT nothing FROM images", "nothing"),
        ("SELEC 1", "SELEC"),
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
        ("DROP TABLE images", ""),
    ):
        visit(page, "/sql", q=query)
        expect(page.get_by_role("alert")).to_contain_text(said)
        expect(page.get_by_role("textbox", name="Query")).to_have_value(query)
    page.get_by_role("textbox", name="Query").fill("SELECT 1 AS a")
    page.get_by_role("button", name="Run").click()
    expect(result(page)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_query_can_be_stopped(page: Page, watch: Watch) -> None:
    watch.expects_silence()
    visit(page, "/sql")
    field = page.get_by_role("textbox", name="Query")
    field.fill("SELECT count(*) FROM range(3000000000) a WHERE hash(a.range) % 7 = 3")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("Running…")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Running…")).to_have_count(0)
    field.fill("SELECT 5 AS a")
    field.press("Control+Enter")
    expect(result(page).get_by_role("cell")).to_have_text("5")


def test_many_rows_go_on_as_one_scrolls_and_too_many_are_said(page: Page) -> None:
    visit(page, "/sql", q="SELECT range AS n FROM range(250)")
    rows = result(page).locator("tbody tr")
    while (before := rows.count()) < 250:
        page.evaluate("scrollTo(0, document.scrollingElement.scrollHeight)")
        expect(rows.nth(before)).to_be_attached()
    assert texts(rows) == [str(number) for number in range(250)]
    visit(page, "/sql", q="SELECT range AS n FROM range(200000)")
    expect(page.get_by_text("there are more, which are left out: add a LIMIT or count them")).to_be_visible()


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_the_answer_can_be_downloaded(page: Page, asked: Index, kind: str) -> None:
    visit(page, "/sql", q=QUERY)
    with page.expect_download() as coming:
        page.get_by_role("button", name=kind, exact=True).click()
    assert coming.value.suggested_filename == f"index.{kind.lower()}"
    data = coming.value.path().read_bytes()
    expected = asked.sql(QUERY).to_arrow()
    found = pq.read_table(io.BytesIO(data)) if kind == "Parquet" else pa_csv.read_csv(io.BytesIO(data))
    assert found.column_names == expected.column_names
    assert found.cast(expected.schema).to_pydict() == expected.to_pydict()


def test_queries_are_kept_and_forgotten(page: Page) -> None:
    visit(page, "/sql", q="SELECT 7 AS a\n-- a comment")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    visit(page, "/sql")
    saved = page.get_by_role("button", name="SELECT 7 AS a", exact=True)
    saved.click()
    expect(result(page).get_by_role("cell")).to_have_text("7")
    expect(page.get_by_role("textbox", name="Query")).to_have_value("SELECT 7 AS a\n-- a comment")
    page.get_by_role("button", name="Forget SELECT 7 AS a").click()
    expect(saved).to_have_count(0)
    visit(page, "/sql")
    expect(saved).to_have_count(0)
