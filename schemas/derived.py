"""The records of what is derived from a model's shards and can be made again: the FAISS index, visual words, maps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bagindex_schemas.records import FileName, FileRecord, Record

Metric = Literal["cosine", "l2"]


class DerivedRecord(Record):
    """What a derived folder was made from, and its files."""

    features_sha256: str = Field(description="over the hashes of the shards' features that it was made from")
    files: dict[FileName, FileRecord]

    @property
    def bytes(self) -> int:
        """Of its files."""
        return sum(file.bytes for file in self.files.values())


class Probing(Record):
    """How far an approximate search looks, and how many of the nearest it finds that way."""

    probes: int = Field(description="inverted lists that are looked at; 0 where the index has none")
    candidates: int = Field(description="patches that are taken from the index and ranked again by stored features")
    recall: float = Field(description="share of the 10 exactly nearest patches that are found")
    milliseconds: float = Field(description="median of a query, without the re-ranking")


class AnnRecord(DerivedRecord):
    """`patches.json`."""

    metric: Metric
    asked: str = Field(description="`auto`, `none` or a factory string")
    factory: str | None = Field(description="of FAISS; None: there is no index, and answers are exact by scanning")
    patches: int
    lists: int = Field(default=0, description="inverted lists")
    sampled: int = Field(default=0, description="patches that the index was trained on")
    queries: int = Field(default=0, description="held-out patches that recall was measured with")
    trials: tuple[Probing, ...] = Field(default=(), description="what was measured, the one in force last")
    seconds: float = Field(default=0.0, description="that making it took")
    versions: dict[str, str] = Field(default_factory=dict)

    def __str__(self) -> str:
        """For people."""
        if self.factory is None:
            return f"no FAISS index (--ann {self.asked}): exact answers, by comparing all {self.patches:,} patches"
        said = f"{self.factory} (--ann {self.asked}), {self.patches:,} patches, {self.bytes / 1e6:,.1f} MB"
        if probing := self.probing:
            lists = f"{probing.probes} of {self.lists} lists, " if self.lists else ""
            said += (
                f"; recall of the 10 nearest {100 * probing.recall:.1f} % on {self.queries} held-out patches "
                f"({lists}{probing.candidates} candidates, {probing.milliseconds:.2g} ms)"
            )
        return f"{said}; made in {self.seconds:.1f} s"

    @property
    def probing(self) -> Probing | None:
        """The settings in force."""
        return self.trials[-1] if self.trials else None


class WordsRecord(DerivedRecord):
    """`words.json`."""

    words: int = Field(gt=0)
    asked: int = Field(gt=0, description="so many were asked for; those that no patch is are not there")
    patches: int
    sampled: int = Field(description="patches that were clustered; all were assigned")
    iterations: int
    seed: int
    seconds: float = Field(description="that making them took")
    versions: dict[str, str]

    def __str__(self) -> str:
        """For people."""
        return f"{self.words} words of {self.patches:,} patches, made in {self.seconds:.1f} s"


class MapRecord(DerivedRecord):
    """`map.json` and `map-words.json`: patches, or visual words, laid out in two dimensions."""

    points: int = Field(gt=0)
    asked: int | None = Field(description="so many patches were asked for; None: one point for each visual word")
    words_sha256: str | None = Field(default=None, description="of the words that it was made of")
    perplexity: float
    iterations: tuple[int, int]
    seed: int
    seconds: float = Field(description="that making it took")
    versions: dict[str, str]

    def __str__(self) -> str:
        """For people."""
        what = "visual words" if self.asked is None else "patches"
        return f"map of {self.points:,} {what}, made in {self.seconds:.1f} s"
