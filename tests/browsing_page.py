"""A real browser for tests of the service's page: Chromium, driven from a thread of its own."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest

from bagindex import Index
from serving import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Playwright

_Result = TypeVar("_Result")
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
# Of two such switches the last holds, so Playwright's own list comes first. Then: each window would have two pages to
# draw suggestions below an address bar that nobody sees, and another process in stock.
_WITHOUT = [
    *("AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades", "LensOverlay"),
    *("HttpsFirstBalancedModeAutoEnable", "MediaRouter", "PaintHolding", "ThirdPartyStoragePartitioning"),
    *("AvoidCorsURLLoaderRestartOnRedirect", "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled"),
    *("PreconnectToSearch", "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "SpareRendererForSitePerProcess"),
]
_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", f"--disable-features={','.join(_WITHOUT)}"),
    # Nobody else is reached. Playwright's routes would see to that, too, but have every file loaded anew each time.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
_PATIENCE = 15_000
"""Milliseconds that something may take to appear: what takes as long is broken."""

_FOR, _AGAINST = (178, 24, 43), (33, 102, 172)
"""Colours of evidence."""
# A copy is read: reading what is drawn changes how the browser keeps it, and makes it say so.
_PIXELS = """(element) => {
  const [height, width] = [element.naturalHeight ?? element.height, element.naturalWidth ?? element.width];
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(element, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  let text = "";  // a list of numbers would take long to hand over
  for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
  return { size: [height, width, 4], data: btoa(text) };
}"""
# All of a panel, and of a page what is counted below.
_FURTHER = """() => {
  const panel = document.querySelector(".inspector");
  const scrolled = panel ?? document.scrollingElement;
  const before = scrolled.scrollTop;
  if (panel || before < 600) scrolled.scrollBy(0, 600);
  return scrolled.scrollTop > before;
}"""
_VIEW = """() => {
  const below = [...document.querySelectorAll("main ul.tiles > li:nth-child(n + 25), ul.cards > li:nth-child(n + 7)")];
  for (const each of below) each.hidden = true;
  const pictures = [...document.images].filter((each) => each.checkVisibility());
  const found = [document.body.innerText, pictures.map((each) => each.getAttribute("src"))];
  for (const each of below) each.hidden = false;
  return found;
}"""
# Counts the questions that are under way.
_WATCHING = """
(() => {
  window.__open = 0;
  const counted = (call) => async function (...given) {
    window.__open += 1;
    try { return await call.apply(this, given); } finally { window.__open -= 1; }
  };
  window.fetch = counted(window.fetch);
  for (const name of ["json", "text", "blob"]) Response.prototype[name] = counted(Response.prototype[name]);
})();
"""
# Nothing is asked or loaded for some frames on end: what is seen near the window's edge is asked for a frame later.
_SETTLED = """(mark) => {
  const near = (box) => box.bottom > 0 && box.top < innerHeight;
  const quiet = document.querySelector("h1") && window.__open === 0 &&
    [...document.images].every((image) => image.complete || !near(image.getBoundingClientRect()));
  if (window.__mark !== mark) [window.__mark, window.__frames] = [mark, 0];
  window.__frames = quiet ? window.__frames + 1 : 0;
  return window.__frames > 4;
}"""


class BrowserThread:
    """The browser, and the thread that it is driven from.

    Playwright leaves an event loop running in the thread that calls it; in the main thread, tests that run one of
    their own would fail.
    """

    def __init__(self, path: str) -> None:
        self._thread = ThreadPoolExecutor(1, "browser")
        self._path = path
        self._playwright: Playwright | None = None
        self.browser: Browser | None = None
        self.marks = 0

    def run(self, function: Callable[[], _Result]) -> _Result:
        """Call a function in the thread."""
        __tracebackhide__ = True
        return self._thread.submit(function).result()

    def start(self) -> None:
        """Start the browser."""
        from playwright.sync_api import expect, sync_playwright

        expect.set_options(timeout=_PATIENCE)
        self._playwright = sync_playwright().start()
        self.browser = self._playwright.chromium.launch(executable_path=self._path, args=_ARGUMENTS)

    def stop(self) -> None:
        """End it, and the thread."""
        try:
            self.run(self._stop)
        finally:
            self._thread.shutdown()

    def _stop(self) -> None:
        if self.browser is not None:
            self.browser.close()
        if self._playwright is not None:
            self._playwright.stop()


class Watch:
    """What the pages of a test did that they should not."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.refused: list[tuple[int, str]] = []
        self._statuses: set[int] = set()
        self._texts: list[str] = []

    def expects(self, *statuses: int) -> None:
        """Answers of these kinds belong to the test."""
        self._statuses |= set(statuses)
        self._texts += [f"Failed to load resource: .* status of {status} " for status in statuses]

    def expects_silence(self) -> None:
        """It belongs to the test that the service does not answer."""
        self._texts.append("Failed to load resource: net::ERR_")

    def follow(self, page: Page, address: str) -> None:
        """Notice what a page does; `address` is where it may ask."""

        def asked(url: str) -> None:
            if not url.startswith((address + "/", "data:", "blob:" + address)):
                self.wrong.append(f"asked {url}")

        def answered(status: int, url: str) -> None:
            if status >= 400:
                self.refused.append((status, url))
                if status not in self._statuses:
                    self.wrong.append(f"{status} of {url}")

        def said(kind: str, text: str) -> None:
            if kind in ("error", "warning") and not any(re.match(each, text) for each in self._texts):
                self.wrong.append(f"{kind}: {text}")

        page.on("request", lambda request: asked(request.url))
        page.on("response", lambda response: answered(response.status, response.url))
        page.on("console", lambda message: said(message.type, message.text))
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))


class OpenPage(Protocol):
    """Opens an empty page of a service, in a browser of its own as far as cookies and storage go."""

    def __call__(self, service: Running, **options: Any) -> Page: ...


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Tests that use the browser run in its thread."""
    thread = pyfuncitem.funcargs.get("browser")
    if isinstance(thread, BrowserThread):
        test = pyfuncitem.obj
        pyfuncitem.obj = lambda **given: thread.run(lambda: test(**given))
    return (yield)


@pytest.fixture(scope="session")
def browser() -> Iterator[BrowserThread]:
    """Chromium; tests that need it skip without it, but not where everything must be tested."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        message = f"there is no Chromium: none of {', '.join(_NAMES)} is on the path"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    thread = BrowserThread(path)
    try:
        thread.run(thread.start)
        yield thread
    finally:
        thread.stop()


@pytest.fixture
def watch() -> Watch:
    """What the pages of this test do; the test fails at its end if that is not what it expects."""
    return Watch()


@pytest.fixture
def open_page(browser: BrowserThread, watch: Watch) -> Iterator[OpenPage]:
    """Opens pages, which are watched and closed."""
    contexts = []

    def make(service: Running, **options: Any) -> Page:
        assert browser.browser is not None
        context = browser.browser.new_context(base_url=service.address, **options)
        contexts.append(context)
        context.set_default_timeout(_PATIENCE)
        context.add_init_script(_WATCHING)
        page = context.new_page()
        watch.follow(page, service.address)
        context.on("page", lambda other: watch.follow(other, service.address))
        return page

    def close() -> None:
        for context in contexts:
            context.close()

    yield make
    browser.run(close)
    assert watch.wrong == []


def address(path: str, **values: Any) -> str:
    """The address of a page below the service's."""
    given = {name.rstrip("_"): value for name, value in values.items()}
    return path + (f"?{urlencode(given, doseq=True)}" if given else "")


def visit(page: Page, path: str, **values: Any) -> Page:
    """Open an address, and wait until the page is drawn."""
    page.goto(address(path, **values))
    return settled(page)


_marks = iter(range(1 << 60))


def settled(page: Page) -> Page:
    """Wait until nothing more is asked or loaded."""
    page.wait_for_function(_SETTLED, arg=next(_marks))
    return page


def query_of(page: Page) -> dict[str, list[str]]:
    """The values in a page's address."""
    return parse_qs(urlsplit(page.url).query, keep_blank_values=True)


def tiles(page: Page, label: str) -> Locator:
    """The patches of a list, by the list's name."""
    return page.get_by_role("list", name=label, exact=True).locator("a.tile")


def patches(page: Page, label: str) -> list[int]:
    """Their ids, from the addresses that they open."""
    hrefs = tiles(page, label).evaluate_all("links => links.map((link) => link.href)")
    return [int(parse_qs(urlsplit(href).query)["patch"][0]) for href in hrefs]


def pictured(page: Page, label: str) -> list[int]:
    """Their ids, from the addresses of their pictures."""
    found = tiles(page, label).locator("img").evaluate_all("images => images.map((image) => image.src)")
    return [int(re.findall(r"/patches/(\d+)\.png", each)[0]) for each in found]


def panel(page: Page) -> Locator:
    """The panel of a patch or an image."""
    return page.get_by_role("complementary")


def pixels(element: Locator) -> np.ndarray:
    """What a picture or a canvas shows: uint8 [height, width, RGB and opacity]."""
    found = element.evaluate(_PIXELS)
    return np.frombuffer(base64.b64decode(found["data"]), np.uint8).reshape(found["size"])


def check_heatmap(canvas: Locator, index: Index, image: int, name: str, model: str | None = None) -> None:
    """The canvas shows a class's evidence in an image."""
    expected = index.heatmap(image, classes=[name], model=model)
    check_drawn(canvas, expected.values[0], float(expected.limits[0]))


def check_drawn(canvas: Locator, values: np.ndarray, limit: float) -> None:
    """The canvas shows evidence: its sign as the colour, its strength as the opacity."""
    drawn = pixels(canvas).astype(int)
    assert drawn.shape[:2] == values.shape
    strength = 235 * np.minimum(1, np.abs(values) / limit)
    np.testing.assert_allclose(drawn[..., 3], strength, atol=0.51)
    seen = drawn[..., 3] > 100  # a canvas keeps colours of what is nearly transparent only roughly
    colours = np.where((values > 0)[..., None], np.array(_FOR), np.array(_AGAINST))
    assert seen.any()
    np.testing.assert_allclose(drawn[seen][:, :3], colours[seen], atol=3)


def texts(locator: Locator) -> list[str]:
    """The texts of some elements, each in one line."""
    return [" ".join(text.split()) for text in locator.all_inner_texts()]


def shown(number: float, digits: int = 2, sign: bool = False) -> str:
    """A number as the page writes it."""
    return ("+" if sign and number >= 0 else "") + f"{number:.{digits}f}".replace("-", "−")


def percent(share: float, digits: int | None = None) -> str:
    """A share as the page writes it."""
    value = 100 * share
    return f"{value:.{(1 if 0 < value < 10 else 0) if digits is None else digits}f} %"


def view(page: Page) -> tuple[list[str], list[str]]:
    """What is seen from top to bottom: the lines of text, and the addresses of the pictures.

    Times that were measured are left out; so is what an endless list has below its first items, since how much is
    there depends on how far one has scrolled, and which patches come before and after, which depends on the list that
    one came from.
    """
    from playwright.sync_api import expect

    settled(page)
    for _ in range(8):  # what comes near is asked for, and pushes down what comes after
        if not page.evaluate(_FURTHER):
            break
        settled(page)
    expect(page.get_by_role("complementary").get_by_text("Looking…")).to_have_count(0)
    text, pictures = page.evaluate(_VIEW)
    lines = [re.sub(r"\b\d+ ms\b", "ms", line.strip()) for line in text.splitlines()]
    return [line for line in lines if line and line not in ("‹", "›", "That is all.")], pictures


def check_view(page: Page, expected: tuple[list[str], list[str]]) -> None:
    """The same is seen as there was."""
    for now, before in zip(view(page), expected, strict=True):
        assert "\n".join(unified_diff(before, now, "expected", "found", lineterm="", n=1)) == ""
