"""Changing records on purpose, seal and all: a fault of a program, or a stranger's, not of a disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def change_record(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` work on the JSON of a record, and seal what comes of it; by another way than bagindex does."""
    record = json.loads(path.read_text())
    record.pop("record_sha256", None)
    change(record)
    body = json.dumps(record, indent=1)
    digest = hashlib.sha256(body.encode()).hexdigest()
    path.write_text(body[: -len("\n}")] + f',\n "record_sha256": "{digest}"\n}}\n')
