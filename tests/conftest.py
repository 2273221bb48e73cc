"""Fixtures: a home of its own for every test, and the example index."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import example
from bagindex import Index

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAGINDEX_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("BAGINDEX_WEIGHTS", str(tmp_path_factory.mktemp("weights")))
    for name in ("BAGINDEX_INDEX", "BAGINDEX_IMAGENET", "BAGINDEX_CONFIG", "BAGINDEX_WEIGHTS_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home_folder() -> Path:
    """Where this test's named indexes are."""
    return Path(os.environ["BAGINDEX_HOME"])


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pictures/` and `bagnet9.safetensors` of tests/example.py."""
    folder = tmp_path_factory.mktemp("example")
    example.make_pictures(folder / "pictures")
    example.make_weights(folder / "bagnet9.safetensors", folder / "pictures")
    return folder


@pytest.fixture(scope="session")
def example_index(example_folder: Path) -> Index:
    """An index of the example, built with a real (narrow) BagNet-9. Not to be changed."""
    return Index.build(
        example_folder / "pictures", weights=example_folder / "bagnet9.safetensors", out=example_folder / "index"
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference figures beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("the reference figures are not here")
    return SHARED
