"""Writes schemas/openapi.json and schemas/examples.json: `python tests/make_openapi.py INDEX` with the demo's index."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from bagindex import Index
from bagindex.service.app import create_app, openapi
from bagindex.service.routes.adding import examples
from serving import API, running

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
ASKED = {
    "indexes": "/indexes",
    "info": "/info",
    "models": "/models",
    "classes": "/classes?limit=2",
    "images": "/images?limit=2",
    "image": "/images/17",
    "top_patches": "/top-patches?class=fish&k=2",
    "patch": "/patches/1000?class=fish&k=2",
    "similar": "/similar?patch=1000&k=2",
    "heatmap": "/heatmap?image=17",
    "explain": "/explain?image=17",
    "patch_map": "/map?class=fish",
    "words": "/words?class=fish&k=1",
    "word": "/words/3?k=1",
    "why": "/why?image=17&k=1",
    "flip": "/flip?image=17",
    "without": "/without?word=3",
    "shortcuts": "/shortcuts?class=fish&k=1",
    "confusions": "/confusions?k=1",
    "label_errors": "/label-errors?k=1",
    "confusion_matrix": "/confusion-matrix?k=4",
    "tables": "/tables",
}
_SHORT = 4
"""Longer lists are cut in examples."""


def text(document: object) -> str:
    """A document as it is written."""
    return json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def shortened(value: Any) -> Any:
    """An answer with short lists."""
    if isinstance(value, dict):
        return {key: shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shortened(each) for each in value[:_SHORT]]
    return value


def main() -> None:
    """Write both files."""
    with running([sys.argv[1]]) as service:
        found = {}
        for name, path in ASKED.items():
            answer = httpx.get(service.address + API + path)
            answer.raise_for_status()
            found[name] = shortened(answer.json())
        for name, other in {"heatmap_of_picture": "heatmap", "explain_picture": "explain"}.items():
            found[name] = found[other]
        for name in ("similar", "why", "flip"):
            found[f"{name}_of_picture"] = found[name]
        found["explain_confused"] = {"explanations": [found["explain"]]}
        began = time.perf_counter()
        rows = Index.open(sys.argv[1]).sql("SELECT count(*) AS images FROM images").to_dicts()
        milliseconds = round(1000 * (time.perf_counter() - began), 3)
        found["sql"] = {
            **{"columns": [{"name": "images", "type": "int64"}], "rows": [[rows[0]["images"]]]},
            **{"truncated": False, "milliseconds": milliseconds},
        }
        (SCHEMAS / "examples.json").write_text(text(found), encoding="utf-8")
        examples.cache_clear()
        (SCHEMAS / "openapi.json").write_text(text(openapi(create_app(service.service))), encoding="utf-8")


if __name__ == "__main__":
    main()
