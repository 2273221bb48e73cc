"""Visual words and accounts: seconds and memory to make words, times of the questions that they answer.

    python tests/benchmarks/accounts.py INDEX [-n 256] [--json FILE]

The words of INDEX are made again; it should be of one model with features and labels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bagindex import Index
from common import PeakMemory, Row, machine, print_table, repeat, row, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("-n", "--count", type=int, default=256)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with Index.open(options.index) as index:
        import faiss  # noqa: F401  not part of the memory that is measured
        import torch  # noqa: F401

        started = time.perf_counter()
        with PeakMemory() as memory:
            index.make_words(options.count)
        seconds = time.perf_counter() - started
        rows = questions(index)
    print(f"{options.count} words made in {seconds:.1f} s, {memory.bytes / 1e9:.2f} GB beyond libraries\n")
    print_table(rows)
    if options.json:
        made = {"words": options.count, "seconds": seconds, "memory": memory.bytes}
        write_json(options.json, {"machine": machine(), "made": made, "questions": rows})


def questions(index: Index) -> list[Row]:
    """A row for each kind of question."""
    name = index.classes[0].name
    pair = f"{index.classes[0].name},{index.classes[1].name}"
    image = index.sql("SELECT image_id FROM predictions WHERE NOT correct LIMIT 1").to_dicts()[0]["image_id"]
    quoted = name.replace("'", "''")
    asked: dict[str, Callable[[], object]] = {
        "words()": lambda: index.words(),
        "words(class)": lambda: index.words(name),
        "why(image)": lambda: index.why(image),
        "why(image, vs)": lambda: index.why(image, vs=pair),
        "flip(image)": lambda: index.flip(image),
        "without(1 word)": lambda: index.without(7),
        "without(10 words)": lambda: index.without(range(10)),
        "shortcuts()": lambda: index.shortcuts(),
        "shortcuts(class)": lambda: index.shortcuts(name),
        "confusions()": lambda: index.confusions(),
        "SQL: words_of(class)": lambda: index.sql(f"FROM words_of('{quoted}')"),
        "SQL: image_words(image)": lambda: index.sql(f"FROM image_words({image})"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for what, question in {
            "words(class)": lambda: index.words(name),
            "why(image)": lambda: index.why(image),
            "flip(image)": lambda: index.flip(image),
            "shortcuts()": lambda: index.shortcuts(),
            "confusions(k=8)": lambda: index.confusions(k=8),
        }.items():
            asked[f"{what}, as a PNG"] = lambda question=question: question().save(Path(folder) / "x.png")  # type: ignore[misc]
        rows = []
        for what, work in asked.items():
            work()
            rows.append(row(what, repeat(work, most=15)))
    return rows


if __name__ == "__main__":
    main()
