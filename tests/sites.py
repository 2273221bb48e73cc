"""Services that tests of the page share: the demo, and an index of each other kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bagindex import Index
from bagindex.service.access import Access
from bagindex.service.settings import Settings
from browsing_page import BrowserThread, OpenPage
from serving import Running, running
from wordy import worded_index

if TYPE_CHECKING:
    from playwright.sync_api import Page

TOKEN = "a-token-of-these-tests-only"
HOSTILE = [
    "<img src=x onerror=\"document.title='taken'\">",
    "<script>document.title='taken'</script>",
    "'\"><b>bold</b>",
    "a, b & c",
    "100%2F50 + 50%",
    "a/b/../c",
    "..",
    "#top?class=..",
    "\u202egnirts\u202c and \u200fmarks",
    "🐟🦈 fish",
    "\u00a0",
    "\u200b",
    "constructor",
    "__proto__",
    "3",
    "null",
    "x" * 300,
    "{{name}} ${name} {name}",
    "a\r\nSet-Cookie: b=c",
    "back\\slash",
]
"""Names that a page may trip over; "3" is the number of another."""


@pytest.fixture(scope="session")
def site(demo_words: Index) -> Iterator[Running]:
    """The demo's index, with words."""
    with running([demo_words]) as service:
        yield service


@pytest.fixture(scope="session")
def asked(demo_words: Index) -> Iterator[Index]:
    """The demo's index as it is asked beside the page."""
    with Index.open(demo_words.path) as index:
        yield index


@pytest.fixture
def page(browser: BrowserThread, open_page: OpenPage, site: Running) -> Page:
    """An empty page of the demo's service."""
    return browser.run(lambda: open_page(site))


@pytest.fixture(scope="session")
def two_models(planted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of some planted pictures by two models: the demo's, and one that was never trained."""
    import torch

    from bagindex.model import BagNet
    from bagindex.registry import ARCHITECTURES
    from bagindex.weights import pack, read_checkpoint

    folder = tmp_path_factory.mktemp("two")
    torch.manual_seed(0)
    trained = read_checkpoint(planted_folder / "bagnet33.safetensors")
    assert trained.classes is not None
    assert trained.transform is not None
    other = BagNet(ARCHITECTURES["bagnet9"], len(trained.classes), 0.0625).eval()
    names = [each.name for each in trained.classes]
    (folder / "bagnet9.safetensors").write_bytes(
        pack(other.state_dict(), ARCHITECTURES["bagnet9"], names, trained.transform)
    )
    weights = [planted_folder / "bagnet33.safetensors", folder / "bagnet9.safetensors"]
    Index.build(planted_folder / "pictures", weights=weights, out=folder / "two", limit=30).close()
    return folder / "two"


@pytest.fixture(scope="session")
def padded(planted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of some planted pictures by a BagNet-17 v2 that was never trained, whose inputs are 96 × 112 pixels."""
    from bagindex.registry import ARCHITECTURES
    from bagindex.weights import pack, read_checkpoint
    from bagindex_schemas.records import Transform
    from test_model import procedural_model

    folder = tmp_path_factory.mktemp("padded")
    names = [each.name for each in read_checkpoint(planted_folder / "bagnet33.safetensors").classes or ()]
    model = procedural_model("bagnet17v2", len(names), 0.0625)
    transform = Transform(resize=112, crop_height=96, crop_width=112)
    weights = folder / "bagnet17v2.safetensors"
    weights.write_bytes(pack(model.state_dict(), ARCHITECTURES["bagnet17v2"], names, transform))
    Index.build(planted_folder / "pictures", weights=weights, out=folder / "i", limit=12, device="cpu").close()
    return folder / "i"


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose classes are called as no one would wish. Each has two images; the model knows one of them."""
    folder = tmp_path_factory.mktemp("hostile") / "i"
    count = len(HOSTILE)
    table = np.random.default_rng(5).normal(0, 0.2, size=(2 * count, 6, count))
    for image in range(2 * count):
        label = image // 2
        table[image, image % 6, label if image % 2 == 0 else (label + 1) % count] += 9
    words = np.arange(12 * count).reshape(2 * count, 6) % 5
    labels = [HOSTILE[image // 2] for image in range(2 * count)]
    worded_index(folder, table, labels, words, classes=HOSTILE).close()
    return folder


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three images without labels."""
    folder = tmp_path_factory.mktemp("unlabelled") / "i"
    table = np.random.default_rng(2).normal(size=(3, 6, 3))
    worded_index(folder, table, [None] * 3, np.zeros((3, 6), int)).close()
    return folder


def _part(pictures: Path, folder: Path, keep: str, pixels: bool) -> Path:
    weights = pictures / "bagnet33.safetensors"
    Index.build(pictures / "pictures", weights=weights, out=folder / "i", keep=keep, pixels=pixels, limit=12).close()
    return folder / "i"


@pytest.fixture(scope="session")
def without_pixels(planted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with features, of images whose pixels are not kept."""
    return _part(planted_folder, tmp_path_factory.mktemp("blind"), "features", False)


@pytest.fixture(scope="session")
def summaries(planted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index that keeps summaries only."""
    return _part(planted_folder, tmp_path_factory.mktemp("summaries"), "summary", False)


@pytest.fixture
def guarded(unlabelled: Path) -> Iterator[Running]:
    """A service that wants a token."""
    with running([unlabelled], Settings(access=Access(token=TOKEN))) as service:
        yield service
