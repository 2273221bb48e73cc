"""Flip: the fewest patches that a prediction hangs on, against all subsets and against the model."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bagindex import Index
from bagindex.accounts.flip import fewest
from bagindex.errors import QueryError
from bagindex.figures.flip import faded
from looks import look_at
from wordy import recomputed, worded_index


def by_brute_force(evidence: np.ndarray) -> tuple[int | None, set[int]]:
    """The smallest number of patches that changes the argmax, over all subsets, and all classes that can come of it."""
    patches = evidence.shape[1]
    before = evidence.sum(axis=1).argmax()
    for count in range(1, patches):
        after = {
            int(np.delete(evidence, gone, axis=1).sum(axis=1).argmax()) for gone in combinations(range(patches), count)
        }
        if after != {before}:
            return count, after - {int(before)}
    return None, set()


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 4, 6, 9])),
        elements=st.integers(-6, 6).map(float),
    )
)
@settings(deadline=None, max_examples=150)
def test_no_smaller_subset_does(evidence: np.ndarray) -> None:
    found = fewest(evidence)
    count, classes = by_brute_force(evidence)
    assert found.before == evidence.sum(axis=1).argmax()
    if count is None:
        assert (found.after, found.removed) == (None, ())
        assert set(found.needed) == {None}
        return
    assert len(found.removed) == count
    assert found.after in classes
    # What is left really is predicted so: no third class is ahead.
    assert np.delete(evidence, found.removed, axis=1).sum(axis=1).argmax() == found.after
    assert min(each for each in found.needed if each is not None) == count


def test_by_hand(tmp_path: Path) -> None:
    # cat is ahead of dog by 8 + 1 - 3: without the first patch dog is ahead. Fish would only ever tie with cat, which
    # comes before it.
    table = np.array([[[8, 0, 0], [1, 0, 0], [0, 3, 0], [0, 0, 0]]])
    with worded_index(tmp_path / "i", table, ["cat"], side=(16, 16)) as index:
        found = index.flip(0)
        assert (found.before.name, found.recorded.name, len(found)) == ("cat", "cat", 1)
        assert found.after is not None
        assert found.after.name == "dog"
        assert found.found.needed == (None, 1, None)
        patch = found.patches[0]
        assert (patch.row, patch.col, patch.patch_id, patch.difference, patch.margin) == (0, 0, 0, 8.0, -2 / 3)
        assert (found.margin, found.rounding) == (1.5, 0.0)
        assert "Without this patch of 4 it is dog, and no removal of fewer changes the prediction" in found.words


def test_equal_counts_take_the_larger_margin() -> None:
    evidence = np.array([[5.0, 0, 0], [0, 1, 0], [0, 2, 0], [0, 2, 0]])
    found = fewest(evidence)
    assert (found.after, found.needed) == (2, (None, 1, 1, 1))


def test_what_nothing_can_flip(tmp_path: Path) -> None:
    table = np.tile([2.0, 1.0, 0.0], (1, 6, 1))
    with worded_index(tmp_path / "i", table, ["cat"]) as index:
        found = index.flip(0)
        assert found.after is None
        assert found.patches == ()
        assert "No removal of patches changes that: whichever are left out of its 6, cat stays ahead." in found.words
        with pytest.raises(QueryError, match=r"nothing to draw: .*No removal"):
            found.save(tmp_path / "flip.png")
        assert found._repr_html_()
        found.save(tmp_path / "flip.json")
        assert json.loads((tmp_path / "flip.json").read_text())[0]["after"] is None
    with worded_index(tmp_path / "one", table[..., :1], [None], classes=["cat"]) as index:
        assert index.flip(0).after is None


def test_the_model_without_these_patches(planted_words: Index) -> None:
    every = recomputed(planted_words)
    for image in range(0, 48, 3):
        found = planted_words.flip(image)
        if found.after is None:
            continue
        removed = [patch.row * found.grid.cols + patch.col for patch in found.patches]
        assert removed == list(found.found.removed)
        means = np.delete(every[image], removed, axis=0).mean(axis=0)
        other = means[found.after.class_id] - means[found.before.class_id]
        assert other == pytest.approx(-found.patches[-1].margin, abs=2e-2)
        assert every[image].mean(axis=0).argmax() == found.before.class_id
        # With the last one back, nothing has changed.
        kept = np.delete(every[image], removed[:-1], axis=0).mean(axis=0)
        assert kept[found.before.class_id] >= kept[found.after.class_id] - 2e-2
        assert abs(found.rounding or 0) < 1e-2


def test_what_only_removed_patches_see_is_grey() -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    shown = faded(pixels, [(0, 0, 16, 8)], [(8, 0, 24, 8)])
    assert (shown[:, :8] == round(255 * 0.85)).all()
    assert ((shown[:, 8:16] > 100) & (shown[:, 8:16] < 115)).all()
    assert (shown[:, 16:] == 0).all()


def test_it_looks_as_it_did(planted_index: Index) -> None:
    look_at(planted_index.flip(3).render("png", 150), "flip")
    look_at(planted_index.why(3, vs="fish,tree").render("png", 150), "why")


def test_the_command(planted_words: Index, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = planted_words.flip(0)
    asked = ["flip", "0", "-i", planted_words.path]
    table = run(*asked)
    assert found.words in table.out
    (record,) = json.loads(run(*asked, "--format", "json").out)
    assert record["removed"] == len(found)
    assert record["needed"]["chain"] == (None if found.before.name == "chain" else found.found.needed[0])
    assert run(*asked, "--format", "csv").out.count("\n") == 1 + len(found)
    for ending in ("png", "svg", "pdf", "json", "csv", "parquet"):
        assert run(*asked, "-o", tmp_path / f"flip.{ending}").status == 0
        assert (tmp_path / f"flip.{ending}").stat().st_size > 100
    assert run(*asked, "--show").out == table.out
    assert found.picture(80, coarse=True).width <= 80
