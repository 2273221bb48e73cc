"""Makes the indexes of `tests/reference/index-format-*.tar.xz`, each by the code that wrote such indexes:

    git worktree add /tmp/then COMMIT && cd /tmp/then && ln -s cli bagindex_cli && ln -s schemas bagindex_schemas
    PYTHONPATH=/tmp/then:/tmp/then/tests python .../tests/make_old_index.py FILE.tar.xz

7830f8d wrote format 1 without visual words, 9a215d7^ with them, c62a51a^ format 2; what is used here each of them has.
Beside the index lies `answers.json`: what that code answered.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from pathlib import Path

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource

LABELS = ["a", "b", None, "a", "b", "b", "a"]
BROKEN = frozenset({1})
CLASS_IDS = {"a": 0, "b": 1}
QUERIES = [
    "SELECT class, patch_id, image_id, label_name, correct, logit FROM evidence ORDER BY ALL",
    "SELECT class, image_id, patch_id, max_logit, mean_logit FROM image_evidence ORDER BY ALL",
    "SELECT image_id, path, label_name, predicted_name, logits FROM predictions ORDER BY ALL",
    "SELECT patch_id, feature FROM features ORDER BY ALL",
    "SELECT path, code FROM rejects ORDER BY ALL",
]
WORDS = "SELECT word, patches, typical FROM words ORDER BY ALL"


def answers(index: Index, queries: list[str]) -> list[list[str]]:
    """What an index answers to some queries, a line of text for each row."""
    return [[repr(list(row.values())) for row in index.sql(query).to_dicts()] for query in queries]


def make(file: Path) -> None:
    """Make an index with what this code can, and pack it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        settings = BuildSettings(shard_size=2, workers=1)
        build(IndexDirectory(path), MemorySource(LABELS, BROKEN), CLASS_IDS, LinearCompute("ab"), settings)
        with Index.open(path) as index:
            queries = list(QUERIES)
            if hasattr(index, "make_words"):
                index.make_words(3)
                queries.append(WORDS)
            said = dict(zip(queries, answers(index, queries), strict=True))
        (path / "LOCK").unlink(missing_ok=True)
        (Path(folder) / "answers.json").write_text(json.dumps(said, indent=1))
        with tarfile.open(file, "w:xz") as packed:
            for name in ("answers.json", "index"):
                packed.add(Path(folder) / name, name, filter=_nobodys)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


if __name__ == "__main__":
    make(Path(sys.argv[1]))
