"""The page in a browser: what is taken for what, and words."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import Page, expect

from bagindex import Index
from browsing_page import Watch, check_heatmap, panel, patches, percent, query_of, settled, shown, texts, tiles, visit

STEP = 24
"""Words that are shown at a time."""


def plural(count: int, one: str, many: str | None = None) -> str:
    """A number of things as the page writes it."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def test_the_matrix_is_that_of_the_index(page: Page, asked: Index) -> None:
    visit(page, "/confusions")
    matrix = asked.confusion_matrix(k=20)
    names = [each.class_.name for each in matrix.classes]
    table = page.get_by_role("table")
    assert texts(table.locator("thead th:not(.corner)")) == names
    rows = table.locator("tbody tr")
    for row, counts, each in zip(rows.all(), matrix.counts, matrix.classes, strict=True):
        expect(row.get_by_role("rowheader")).to_have_text(f"{each.class_.name} {each.images}")
        assert texts(row.get_by_role("cell")) == [str(count) if count else "·" for count in counts]
    expect(page.get_by_role("main")).to_contain_text(f"{matrix.wrong} images of the index are classified wrong")
    pairs = [
        (count, names[row], names[column])
        for row, counts in enumerate(matrix.counts)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    pairs.sort(key=lambda pair: -pair[0])
    listed = texts(page.locator("ol li"))
    images = {each.class_.name: each.images for each in matrix.classes}
    assert listed == [
        f"{label} → {predicted} {plural(count, 'image')}, {percent(count / images[label])} of {label}"
        for count, label, predicted in pairs[:15]
    ]


def test_the_matrix_around_a_class(page: Page, asked: Index) -> None:
    visit(page, "/confusions")
    field = page.get_by_role("combobox", name="Around the class")
    field.fill("tree")
    field.press("Enter")
    settled(page)
    assert query_of(page) == {"class": ["tree"]}
    expect(page.get_by_role("heading", level=1)).to_have_text("tree")
    matrix = asked.confusion_matrix("tree", k=20)
    expect(page.get_by_role("main").locator(".matrix tbody tr")).to_have_count(len(matrix.classes))
    found = [int(text) if text != "·" else 0 for text in texts(page.locator(".matrix td"))]
    counts = np.column_stack([matrix.counts, *([matrix.others] if any(matrix.others) else [])])
    assert found == counts.ravel().tolist()


def test_a_cell_opens_the_images_and_the_patches_that_decide_them(page: Page, asked: Index) -> None:
    visit(page, "/confusions")
    matrix = asked.confusion_matrix(k=20)
    counts = np.array(matrix.counts) * (1 - np.eye(len(matrix.classes), dtype=int))
    row, column = (int(place) for place in np.unravel_index(counts.argmax(), counts.shape))
    label, predicted = (matrix.classes[place].class_.name for place in (row, column))
    images = int(counts[row, column])
    page.get_by_role("link", name=f"{plural(images, 'image')} of {label} predicted as {predicted}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{label} taken for {predicted}")
    settled(page)
    assert query_of(page) == {"label": [label], "predicted": [predicted]}
    (pair,) = [
        each for each in asked.confusions(k=1000).to_dicts() if (each["label"], each["predicted"]) == (label, predicted)
    ]
    assert pair["images"] == images
    assert patches(page, f"Patches that decide for {predicted}") == pair["typical"]
    chips = texts(page.locator("section", has_text="They are of the words that add most").locator("a.chip"))
    assert chips == [
        f"word {word} {percent(share)}" for word, share in zip(pair["words"], pair["margin_shares"], strict=True)
    ]
    explained = asked.explain_confused(label, predicted, k=6, patches=4).to_dicts()
    articles = page.get_by_role("article")
    expect(articles).to_have_count(len(explained))
    for article, each in zip(articles.all(), explained, strict=True):
        expect(article.get_by_role("link", name=f"Open {each['image']}")).to_be_attached()
        for name in (label, predicted):
            place = each["classes"].index(name)
            expect(article.get_by_role("heading", name=f"For {name}")).to_contain_text(
                f"logit {shown(each['logits'][place])}, {percent(each['probabilities'][place])}"
            )
            expected = [part["patch_id"] for part in each["patches"] if part["for"] == name]
            hrefs = (
                article.get_by_role("list", name=f"Patches for {name}")
                .locator("a")
                .evaluate_all("links => links.map((link) => Number(new URL(link.href).searchParams.get('patch')))")
            )
            assert hrefs == expected
    articles.first.get_by_role("link", name="Open").click()
    settled(page)
    assert query_of(page)["image"] == [str(explained[0]["image_id"])]
    assert query_of(page)["against"] == [label]
    check_heatmap(panel(page).locator(".picture canvas").first, asked, explained[0]["image_id"], predicted)
    expect(panel(page).get_by_role("heading", name=f"Why {predicted} and not {label}?")).to_be_attached()
    page.keyboard.press("Escape")
    page.get_by_role("link", name=f"All patches for {predicted} in these images").click()
    settled(page)
    found = asked.top_patches(predicted, wrong_class=True, label=label, predicted_as=predicted, k=24)
    assert patches(page, "In images of other classes, bagnet33") == [patch.patch_id for patch in found]


def test_a_cell_of_the_diagonal_opens_what_is_recognised(page: Page, asked: Index) -> None:
    visit(page, "/confusions")
    page.locator(".matrix td.same a").first.click()
    settled(page)
    name = asked.confusion_matrix(k=20).classes[0].class_.name
    found = asked.top_patches(name, predicted_as=name, k=24)
    assert patches(page, f"In images of {name}, bagnet33")[:24] == [patch.patch_id for patch in found]


def test_a_pair_that_is_never_confused_says_so(page: Page, watch: Watch, asked: Index) -> None:
    watch.expects(422)
    matrix = asked.confusion_matrix(k=20)
    row, column = np.argwhere(np.array(matrix.counts) == 0)[0]
    label, predicted = (matrix.classes[int(place)].class_.name for place in (row, column))
    visit(page, "/confusions", label=label, predicted=predicted)
    expect(page.get_by_text(f"No image of {label} is taken for {predicted}.")).to_be_visible()


def test_words_are_shown_largest_first(page: Page, asked: Index) -> None:
    visit(page, "/words")
    words = [each for each in asked.words(k=1000).to_dicts() if each["word"] is not None]
    titles = page.locator("li.card h2")
    while (before := titles.count()) < len(words):
        page.evaluate("scrollTo(0, document.scrollingElement.scrollHeight)")
        expect(titles.nth(before)).to_be_attached()
    assert texts(titles) == [f"Word {each['word']}" for each in words]
    for each in words[:3]:
        card = page.locator("li.card").filter(has=page.get_by_role("heading", name=f"Word {each['word']}", exact=True))
        expect(card).to_contain_text(
            f"{plural(each['patches'], 'patch', 'patches')} in {plural(each['images'], 'image')}"
        )
        assert patches(page, f"Typical patches of word {each['word']}") == each["typical"][:6]
        assert texts(card.locator("a.chip")) == [
            f"{says['class']} {shown(says['evidence'], 1, sign=True)}" for says in each["says"]
        ]


def test_words_of_a_class(page: Page, asked: Index) -> None:
    visit(page, "/words", class_="fish")
    for title, wrong in (("in images of fish", False), ("in images of others", True)):
        page.get_by_role("radio", name=title, exact=True).check(force=True)
        settled(page)
        found = asked.words("fish", wrong_class=wrong, k=1000)
        words = [each for each in found.to_dicts() if each["word"] is not None][:STEP]
        expect(page.locator("li.card h2").first).to_have_text(f"Word {words[0]['word']}")
        assert texts(page.locator("li.card h2"))[:STEP] == [f"Word {each['word']}" for each in words]
        for card, each in zip(page.locator("li.card").all()[:5], words[:5], strict=True):
            for side in ("right", "wrong"):
                expect(card.locator(f"span.{side} b")).to_have_text(shown(each[f"{side}_contribution"], 3, sign=True))
        assert found.right_logit is not None
        assert found.wrong_logit is not None
        expect(page.get_by_role("main")).to_contain_text(
            f"The mean logit for fish is {shown(found.right_logit, sign=True)} in images of fish "
            f"and {shown(found.wrong_logit, sign=True)} in others"
        )
    page.get_by_role("radio", name="possible shortcuts").check(force=True)
    settled(page)
    suspects = asked.shortcuts("fish", k=1000).to_dicts()
    assert texts(page.locator("li.card h2")) == [f"Word {each['word']}" for each in suspects[:STEP]]
    expect(page.locator("li.card").first).to_contain_text(
        f"decides {suspects[0]['errors']} of {plural(suspects[0]['of'], 'image')} wrongly called fish"
    )


def test_one_word(page: Page, asked: Index) -> None:
    visit(page, "/words")
    page.locator("li.card h2 a").nth(1).click()
    word = asked.words(k=2).to_dicts()[1]["word"]
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Word {word}")
    settled(page)
    found = asked.word(word, k=STEP)
    about = found.to_dict()
    assert patches(page, "Most typical patches") == about["typical"]
    assert patches(page, f"Patches of word {word}")[:STEP] == [each["patch_id"] for each in about["found"]]
    logits = texts(tiles(page, f"Patches of word {word}").locator(".number"))[:STEP]
    assert logits == [shown(each["logit"]) for each in about["found"]]
    overall = asked.without(word).to_dict()["classes"][-1]
    expect(page.get_by_role("main")).to_contain_text(
        f"Without them {percent(overall['after'], 1)} of the labelled images would be classified right instead of "
        f"{percent(overall['before'], 1)}."
    )
    total = sum(each["patches"] for each in about["labels"])
    images = texts(page.locator("p.chips", has_text="is found in images of").locator("a"))
    assert images == [f"{each['class']} {percent(each['patches'] / total)}" for each in about["labels"]][:6]
    other = next(each["class"] for each in about["says"] if each["class"] != about["class"])
    page.locator("p.chips", has_text="speaks for").locator("a", has_text=other).click()
    expect(page.get_by_role("heading", name=f"Its strongest patch for {other}, image by image")).to_be_visible()
    settled(page)
    expected = [each["patch_id"] for each in asked.word(word, other, k=STEP).to_dict()["found"]]
    assert patches(page, f"Patches of word {word}")[:STEP] == expected
