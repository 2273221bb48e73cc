"""Visual words as a question gives them back: a list that prints as a table and is drawn as strips of patches."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from bagindex import output
from bagindex.errors import BagindexError, QueryError
from bagindex.results import Tabular, table_writers
from bagindex_schemas.records import ClassRecord

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from PIL import Image

    from bagindex.figures.words import Row

PICTURED = 20
"""Words that a picture shows, where there are more and nothing else was asked."""
MOST_PICTURED = 100
"""However many are asked for: a higher picture is no picture."""
_STRIP = 8
"""Typical patches of a word that are drawn."""
_SIDES = ("right", "wrong")


@dataclass(frozen=True)
class Saying:
    """What a word says of a class: by how much its mean evidence is above that of all patches (below: negative)."""

    class_: str
    class_id: int
    evidence: float


@dataclass(frozen=True)
class Part:
    """A word in some images.

    Attributes:
        patches: so many of the images' patches are the word.
        share: of all their patches.
        mean: mean evidence of these patches for the class; None where there are none.
        contribution: share × mean, which is what the word adds to the images' mean logit.
    """

    patches: int
    share: float
    mean: float | None
    contribution: float


@dataclass(frozen=True)
class Word:
    """A visual word, or several that are not listed.

    Attributes:
        word: its number; None where several are summed up.
        patches, images: so many patches are it, in so many images (None for several words).
        similarity: mean cosine between its patches and their centroid; None likewise.
        typical: ids of the patches nearest to the centroid, each of another image.
        says: the classes that it speaks for most, the one with most evidence first.
        right, wrong: the word in images of the class asked about, and in those of others; None where no class was
            asked about, or there are no such images.
    """

    word: int | None
    patches: int
    images: int | None
    similarity: float | None
    typical: tuple[int, ...]
    says: tuple[Saying, ...]
    right: Part | None = None
    wrong: Part | None = None


@dataclass(frozen=True)
class WordList(Tabular, Sequence[Word]):
    """Visual words, and what they say.

    Attributes:
        question: what was asked, in words.
        model: the model whose words these are.
        class_: the class asked about, or None.
        words: those that are listed.
        others: all others together; None where there are none.
        right_logit, wrong_logit: the mean logit for the class over its images, and over those of others, of stored
            evidence: the contributions, those of `others` with them, sum to it. None where there are no such images.
    """

    question: str
    model: str
    class_: ClassRecord | None
    words: tuple[Word, ...]
    others: Word | None
    right_logit: float | None
    wrong_logit: float | None
    _cut: Callable[[Sequence[int]], Sequence[NDArray[np.uint8]]] = dataclasses.field(repr=False, compare=False)
    _drawn: int = dataclasses.field(default=PICTURED, repr=False, compare=False)

    @overload
    def __getitem__(self, index: int) -> Word: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Word]: ...
    def __getitem__(self, index: int | slice) -> Word | Sequence[Word]:
        """A word by its place in the list."""
        return self.words[index]

    def __len__(self) -> int:
        """Number of words that are listed."""
        return len(self.words)

    def first(self, k: int) -> WordList:
        """The same with at most k words listed, the rest among the others.

        Raises:
            QueryError: k is below 1.
        """
        if k < 1:
            raise QueryError("ask for one word or more")
        rest = (*self.words[k:], *([self.others] if self.others else []))
        return dataclasses.replace(self, words=self.words[:k], others=_together(rest) if rest else None, _drawn=k)

    def __str__(self) -> str:
        """A table."""
        return output.table_text(self.columns, self.table_rows(), self.title)

    @property
    def title(self) -> str:
        """The question, and what the contributions sum to."""
        return ": ".join(filter(None, (self.question, self.totals)))

    @property
    def totals(self) -> str:
        """What the contributions sum to; nothing where no class was asked about."""
        from bagindex.figures.maps import number

        logits = zip(_SIDES, (self.right_logit, self.wrong_logit), strict=True)
        said = [f"{number(logit, 4)} ({side} class)" for side, logit in logits if logit is not None]
        return f"mean logit of the images {', '.join(said)}" if said else ""

    @property
    def columns(self) -> list[str]:
        """Columns of the printed table; `to_dicts` has all."""
        if self.class_ is None:
            return ["word", "patches", "images", "similarity", "says"]
        parts = [f"{side}_{name}" for side in _SIDES for name in ("share", "mean", "contribution")]
        return ["word", "patches", "images", *parts]

    def table_rows(self) -> list[dict[str, Any]]:
        """Rows of the printed table, the others last."""
        return [
            {
                **{name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()},
                "word": self._name(word),
                "says": says_text(word),
            }
            for word, row in zip(self._all(), self.to_dicts(), strict=True)
        ]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The words as JSON objects would have them; the others, if any, are the last, without a number."""
        rows = []
        for word in self._all():
            row: dict[str, Any] = {
                "word": word.word,
                "patches": word.patches,
                "images": word.images,
                "similarity": word.similarity,
                "typical": list(word.typical),
                "says": [
                    {"class": each.class_, "class_id": each.class_id, "evidence": each.evidence} for each in word.says
                ],
            }
            if self.class_ is not None:
                for side, part in zip(_SIDES, (word.right, word.wrong), strict=True):
                    names = [field.name for field in dataclasses.fields(Part)]
                    row |= {f"{side}_{name}": None if part is None else getattr(part, name) for name in names}
            rows.append(row)
        return rows

    def to_arrow(self) -> pa.Table:
        """The words as an Arrow table."""
        import pyarrow as pa

        number, integer = pa.float64(), pa.int64()
        says = pa.list_(pa.struct([("class", pa.string()), ("class_id", integer), ("evidence", number)]))
        columns = [("word", integer), ("patches", integer), ("images", integer), ("similarity", number)]
        columns += [("typical", pa.list_(integer)), ("says", says)]
        if self.class_ is not None:
            for side in _SIDES:
                columns += [(f"{side}_patches", integer)]
                columns += [(f"{side}_{name}", number) for name in ("share", "mean", "contribution")]
        return pa.Table.from_pylist(self.to_dicts(), schema=pa.schema(columns))

    def crops(self, word: Word, most: int = _STRIP) -> Sequence[NDArray[np.uint8]]:
        """Pixels of a word's typical patches, uint8 [q, q, RGB] each.

        Raises:
            QueryError: the index keeps no pixels.
        """
        return self._cut(word.typical[:most])

    def save(self, path: str | Path) -> None:
        """Write a `.json`, `.csv`, `.parquet` or `.arrow` file, or a `.png` or `.html` of 20 words, or of k up to 100.

        Raises:
            OutputError: another ending, or the file cannot be written.
            QueryError: a picture or page is asked for, and the index keeps no pixels.
        """
        writers = {
            ".png": lambda file: file.write_bytes(self.to_png()),
            ".html": lambda file: file.write_text(self.to_html(), encoding="utf-8"),
            **table_writers(self),
        }
        output.save(path, writers)

    def to_png(self, dpi: int | None = None) -> bytes:
        """A row for each word: its typical patches, how often it is seen, what it says.

        Raises:
            QueryError: the index keeps no pixels.
        """
        from bagindex.figures import words
        from bagindex.figures.style import DPI

        shown = self._pictured()
        return words.to_png(shown.question, shown.totals, shown._rows(), dpi or DPI)

    def to_html(self) -> str:
        """The same as a page in one file.

        Raises:
            QueryError: the index keeps no pixels.
        """
        from bagindex.figures import words

        shown = self._pictured()
        return words.to_html(shown.question, shown.totals, shown._rows())

    def picture(self, width: int | None = None, *, coarse: bool = False) -> Image.Image:
        """The words as a picture, at most so many pixels wide.

        Args:
            width: by default as `save` writes it.
            coarse: for a picture of few pixels, such as a terminal's half characters: patches that are hardly enlarged.

        Raises:
            QueryError: the index keeps no pixels.
        """
        from PIL import Image

        from bagindex import render
        from bagindex.figures import words

        if not coarse:
            return Image.open(io.BytesIO(self.to_png(None if width is None else words.dpi_for(width))))
        shown = self._pictured()
        rows = [render.coarse_strip(shown.crops(word), width or 80) for word in shown]
        return render.stack(rows, [f"{word.word} {word.says[0].class_}" for word in shown])

    def _repr_png_(self) -> bytes | None:
        return self.to_png(150) if self._no_picture() is None else None

    def _repr_html_(self) -> str | None:
        reason = self._no_picture()
        return None if reason is None else output.to_html(self.columns, self.table_rows(), self.title, reason)

    def _no_picture(self) -> str | None:
        """Why a notebook is shown a table; None where it is shown the picture."""
        try:
            self._cut(self.words[0].typical[:1])
        except BagindexError as error:
            return f"no pictures: {error}"
        return None

    def _pictured(self) -> WordList:
        most = min(self._drawn, MOST_PICTURED)
        return self if len(self) <= most else self.first(most)

    def _all(self) -> tuple[Word, ...]:
        return self.words if self.others is None else (*self.words, self.others)

    def _name(self, word: Word) -> str | int:
        return "other words" if word.word is None else word.word

    def _rows(self) -> list[Row]:
        from bagindex.figures.words import Row

        shown = [word.typical[:_STRIP] for word in self._all()]
        crops = iter(self._cut([patch for strip in shown for patch in strip]))
        return [
            Row(
                name="other words" if word.word is None else f"word {word.word}",
                count=f"{word.patches:,} patches" + ("" if word.images is None else f" in {word.images:,} images"),
                says=_sayings(word),
                tiles=[next(crops) for _ in strip],
                about=[f"patch {patch}" for patch in strip],
                parts=None
                if self.class_ is None
                else tuple(None if part is None else part.contribution for part in (word.right, word.wrong)),
            )
            for word, strip in zip(self._all(), shown, strict=True)
        ]


def says_text(word: Word) -> str:
    """What a word says, on a line: `dress +1.20, skirt +0.62`."""
    return ", ".join(_sayings(word))


def _sayings(word: Word) -> list[str]:
    from bagindex.figures.maps import number

    return [f"{each.class_} {number(each.evidence)}" for each in word.says]


def _together(words: Sequence[Word]) -> Word:
    def add(parts: Sequence[Part | None]) -> Part | None:
        there = [part for part in parts if part is not None]
        if not there:
            return None
        patches, share = sum(part.patches for part in there), sum(part.share for part in there)
        contribution = sum(part.contribution for part in there)
        return Part(patches, share, contribution / share if share else None, contribution)

    return Word(
        word=None,
        patches=sum(word.patches for word in words),
        images=None,
        similarity=None,
        typical=(),
        says=(),
        right=add([word.right for word in words]),
        wrong=add([word.wrong for word in words]),
    )
