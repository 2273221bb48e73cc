"""Where data sets that are fetched are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def datasets_folder() -> Path:
    """`BAGINDEX_DATASETS`, else below the platform's folder for what can be fetched again."""
    return Path(os.environ.get("BAGINDEX_DATASETS") or platformdirs.user_cache_path("bagindex") / "datasets")
