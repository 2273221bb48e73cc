"""The web page in a browser: how soon something useful is drawn, a class's two subrows, a patch; and what it weighs.

    python tests/benchmarks/page.py FOLDER [INDEX ...]

generates FOLDER/index where it is not there yet (50,000 images and 1,000 classes, with pixels: 11 GB, two minutes, see
`generated.py`), serves it and each INDEX, which must be labelled and have pixels, in processes of their own, drives a
Chromium without a window, prints tables and writes FOLDER/page.json.

It needs Playwright for Python, and a Chromium: Playwright's own, or another with `--chromium PATH`.

Browser and service are on one machine and share its cores, over loopback; a network would add its round trips. *Cold*
is a browser that has nothing in its cache, *warm* one that has been there before. *First* is what this service was not
asked before, *again* what it was. The clocks are the page's own: see `page.js`. Where other programs had the cores
meanwhile, a time says little: such times are left out, and counted, unless too few are left.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from common import Row, machine, print_table, row, write_json
from generated import CLASSES, WHOLE, generate

VIEWPORT = {"width": 1360, "height": 900}
QUIET = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *(("--no-sandbox",) if os.geteuid() == 0 else ()),  # Chromium has none for root
)
SCRIPT = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")

START = 1000.0
CLASS = 300.0
"""Goals, in milliseconds, on two cores with an index of photographs."""
DISTURBED = 0.1
"""Share of the cores' time that others may have while a clock runs."""
PATIENCE = 20.0
"""Seconds that others are waited for."""
LEFT = 5
"""Undisturbed times of one kind, with fewer of which all are taken."""
RESTARTS = 5
SCROLLED = 3
"""Times that a list is scrolled to its end."""
SETTLED = 350
"""Milliseconds without a request, after which nothing is loaded any more."""
TYPED = 3
"""Letters of a class's name."""
LONG = 100.0
"""Milliseconds from which on a request is worth a look."""


@dataclass(frozen=True)
class Served:
    """An index that is served.

    Attributes:
        address: of the service.
        name: the index's.
        classes: names of its classes, in the order of the start page.
        whole: those whose patches can be opened.
        cells: patches of an image.
    """

    address: str
    name: str
    classes: Sequence[str]
    whole: Sequence[str]
    cells: int

    def at(self, path: str = "/", **values: str) -> str:
        """The address of a page."""
        return f"{self.address}{path}?{urlencode({'index': self.name, **values})}"


@contextmanager
def serving(index: Path) -> Iterator[Served]:
    """Serve an index in a process of its own, which has been asked nothing."""
    command = [sys.executable, "-m", "bagindex_cli", "serve", "-i", str(index), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1].rstrip("/")
        api = f"{address}/api/v1"
        found = httpx.get(f"{api}/classes", params={"limit": 1000}, timeout=60).json()["classes"]
        (model, *_) = httpx.get(f"{api}/models", timeout=60).json()["models"]
        classes = [each["name"] for each in found if each["images"]]
        source = json.loads((index / "index.json").read_text(encoding="utf-8"))["plan"]["source"]
        whole = [CLASSES[class_id].name for class_id in WHOLE] if source["kind"] == "generated" else classes
        yield Served(address, index.name, classes, whole, model["grid"]["rows"] * model["grid"]["cols"])
    finally:
        server.terminate()
        server.wait(60)


class Others:
    """What other programs take of the cores: all but this process and those that it started.

    Attributes:
        share: of the cores' time, since `begin` until `end`.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self._began = self._spent()

    def begin(self) -> None:
        """Wait until they are quiet, but not for ever."""
        latest = time.monotonic() + PATIENCE
        while True:
            before = self._spent()
            time.sleep(0.25)
            if self._shares(before, self._spent()) < DISTURBED or time.monotonic() > latest:
                break
        self._began = self._spent()

    def end(self) -> None:
        """Note the share."""
        self.share = self._shares(self._began, self._spent())

    def _shares(self, before: tuple[int, int], after: tuple[int, int]) -> float:
        return (after[0] - before[0]) / max(1, after[1] - before[1])

    def _spent(self) -> tuple[int, int]:
        """The time that others had, and all there was, in ticks."""
        # user nice system idle iowait irq softirq steal
        ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        parents: dict[int, int] = {}
        had: dict[int, int] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                values = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(folder.name)] = int(values[1])
            had[int(folder.name)] = sum(int(each) for each in values[11:15])
        own = {os.getpid()}
        while more := {each for each, parent in parents.items() if parent in own} - own:
            own |= more
        busy = sum(ticks) - ticks[3] - ticks[4]
        return busy - sum(had.get(each, 0) for each in own), sum(ticks)


@dataclass
class Requests:
    """What was asked while a clock ran, by what was measured and by route: milliseconds."""

    waited: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    answered: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    slow: list[tuple[float, str]] = field(default_factory=list)

    def add(self, what: str, requests: Sequence[dict[str, Any]]) -> None:
        """Requests of one measurement."""
        for each in requests:
            place = what, route(each["address"])
            self.waited[place].append(each["waited"])
            self.answered[place].append(each["answered"])
            if each["answered"] > LONG:
                self.slow.append((round(each["answered"], 1), each["address"].partition("/api/v1")[2]))

    def rows(self) -> list[Row]:
        """A table: of each route the median and the longest time from its start until the whole answer was there."""
        return [
            {
                "while": what,
                "route": name,
                "requests": len(times),
                "waited_ms": round(statistics.median(self.waited[what, name]), 1),
                "median_ms": round(statistics.median(times), 1),
                "max_ms": round(max(times), 1),
                f"over_{LONG:.0f}_ms": sum(each > LONG for each in times),
            }
            for (what, name), times in self.answered.items()
        ]


def route(address: str) -> str:
    """The route of an address of the API, ids left out; of files their kind."""
    path = urlsplit(address).path
    if path.startswith("/api/v1"):
        return re.sub(r"/\d+", "/ID", path.removeprefix("/api/v1"))
    return f"page's .{path.rsplit('.', 1)[-1]}" if "." in path else "document"


class Visitor:
    """Somebody with a browser that keeps what it was sent, from one page to the next."""

    def __init__(self, browser: Browser, served: Served, requests: Requests, others: Others) -> None:
        self._context = browser.new_context(viewport=VIEWPORT)
        self._context.add_init_script(SCRIPT)
        self._requests = requests
        self._others = others
        self.served = served
        self.page: Page = self._context.new_page()
        self._opened: Callable[[Page], None] | None = None

    def close(self) -> None:
        """Forget everything."""
        self._context.close()

    def open(self, path: str = "/", **values: str) -> None:
        """Open a page in a new tab, and wait until nothing is loaded any more."""
        self._tab()
        self.page.goto(self.served.at(path, **values))
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is loaded: no request for a while."""
        count = -1
        while count != (count := self.page.evaluate("performance.getEntriesByType('resource').length")):
            self.page.wait_for_timeout(SETTLED)

    def start(self) -> dict[str, float]:
        """Open the start page; milliseconds from the navigation on."""
        self._tab()
        self._others.begin()
        self.page.goto(self.served.at(), wait_until="commit")
        found = {name: self.page.evaluate(f"bench.{name}") for name in ("useful", "whole")}
        self._others.end()
        self._note("start page", {"begin": 0, "end": found["whole"]})
        self.settle()
        return found | self.page.evaluate("bench.paints()")

    def arm(self, event: str, condition: str, **values: Any) -> None:
        """Begin with the next event of a kind (of keys: Enter), and end when a condition of `page.js` holds."""
        self._others.begin()
        self.page.evaluate("(given) => bench.arm(...given)", [event, condition, values])

    def result(self, what: str) -> float:
        """Milliseconds of what was armed."""
        span = self.page.evaluate("bench.result")
        self._others.end()
        return self._note(what, span)

    def scroll(self, what: str, condition: str) -> float:
        """Milliseconds from a scroll to the end until what comes there is drawn."""
        self._others.begin()
        span = self.page.evaluate("(condition) => bench.scroll(condition)", condition)
        self._others.end()
        return self._note(what, span)

    def search(self, text: str) -> None:
        """Type into the start page's field."""
        self.page.focus("main input[role=combobox]")
        self.page.keyboard.type(text)

    @contextmanager
    def listening(self) -> Iterator[dict[str, tuple[str, float]]]:
        """What comes over the wire meanwhile, in tabs opened before or during it: address and bytes, by request."""
        addresses: dict[str, str] = {}
        found: dict[str, tuple[str, float]] = {}

        def sent(event: dict[str, Any]) -> None:
            addresses[event["requestId"]] = event["request"]["url"]

        def came(event: dict[str, Any]) -> None:
            if event["encodedDataLength"]:  # what a cache had has none
                found[event["requestId"]] = addresses[event["requestId"]], event["encodedDataLength"]

        def listen(page: Page) -> None:
            session = self._context.new_cdp_session(page)
            session.on("Network.requestWillBeSent", sent)
            session.on("Network.loadingFinished", came)
            session.send("Network.enable")

        listen(self.page)
        self._opened = listen
        yield found
        self._opened = None

    def _tab(self) -> None:
        self.page.close()
        self.page = self._context.new_page()
        if self._opened is not None:
            self._opened(self.page)

    def _note(self, what: str, span: dict[str, float]) -> float:
        self._requests.add(what, self.page.evaluate("(span) => bench.requests(span)", span))
        return span["end"] - span["begin"]


class Bench:
    """All that is measured of one index.

    Args:
        browser: a running one.
        index: the folder.
        repeats: of each measurement, where there are enough classes.
    """

    def __init__(self, browser: Browser, index: Path, repeats: int) -> None:
        self._browser = browser
        self._index = index
        self._repeats = repeats
        self._times: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._goals: dict[str, float] = {}
        self._others = Others()
        self.requests = Requests()
        self.weights: list[Row] = []

    def rows(self) -> list[Row]:
        """A table of times."""
        found = []
        for what, times in self._times.items():
            calm = [milliseconds for milliseconds, others in times if others < DISTURBED]
            kept = calm if len(calm) >= LEFT else [milliseconds for milliseconds, _ in times]
            found.append({**row(what, kept, self._goals.get(what)), "disturbed": len(times) - len(calm)})
        return found

    def measure(self) -> None:
        """Everything."""
        for part in (
            self.just_started,
            self.start,
            self.classes,
            self.cards,
            self.patches,
            self.pages,
            self.letters,
            self.weigh,
        ):
            began = time.monotonic()
            part()
            print(f"{self._index.name}: {part.__name__}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    def just_started(self) -> None:
        """The start page, of a service that was asked nothing yet."""
        for _ in range(RESTARTS):
            with serving(self._index) as served, self._visitor(served) as visitor:
                self._add(
                    "start page, service just started: first useful paint, cold", visitor.start()["useful"], START
                )

    def start(self) -> None:
        """The start page, again and again."""
        titles = {
            "useful": "first useful paint",
            "whole": "all that can be seen",
            "fcp": "first contentful paint",
            "lcp": "largest contentful paint",
        }
        with serving(self._index) as served:
            for repeat in range(self._repeats + 1):
                with self._visitor(served) as visitor:
                    for cache in ("cold", "warm"):
                        found = visitor.start()
                        if repeat:  # the first one warms up
                            for name, title in titles.items():
                                goal = START if name == "useful" else None
                                self._add(f"start page: {title}, {cache}", found[name], goal)

    def classes(self) -> None:
        """A class's two subrows, from the Enter that chooses it."""
        with serving(self._index) as served:
            for name in self._some(served.classes):
                with self._visitor(served) as visitor:
                    self._enter(visitor, name, "first")
                    self._enter(visitor, name, "again in the same page", opened=True)
                with self._visitor(served) as visitor:
                    self._enter(visitor, name, "again, cold")
                    self._enter(visitor, name, "again, warm")
        with serving(self._index) as served:
            for name in self._some(served.classes):
                with self._visitor(served) as visitor:
                    self._enter(visitor, name, "first, before it is listed", at_once=True)

    def _enter(self, visitor: Visitor, name: str, which: str, *, opened: bool = False, at_once: bool = False) -> None:
        if opened:
            visitor.page.click("a.logo")
        else:
            visitor.open()
        if at_once:
            visitor.arm("keydown", "subrows", name=name)
            visitor.search(name)
        else:
            visitor.search(name)
            visitor.settle()
            visitor.arm("keydown", "subrows", name=name)
        visitor.page.keyboard.press("Enter")
        what = f"class by Enter, {which}"
        self._add(what, visitor.result(what), CLASS)

    def cards(self) -> None:
        """A class's two subrows, from the click on its name."""
        with serving(self._index) as served:
            for which in ("first", "again, cold"):
                for name in self._some(served.classes[: 2 * self._repeats]):
                    with self._visitor(served) as visitor:
                        visitor.open()
                        link = visitor.page.locator(".card h3 a", has_text=re.compile(f"^{re.escape(name)}$"))
                        link.scroll_into_view_if_needed()
                        visitor.settle()
                        visitor.arm("click", "subrows", name=name)
                        link.click()
                        what = f"class by its card, {which}"
                        self._add(what, visitor.result(what), CLASS)

    def patches(self) -> None:
        """A patch, from the click on it until its image, its box and its evidence are drawn."""
        with serving(self._index) as served:
            for name in self._some(served.whole, 2):
                with self._visitor(served) as visitor:
                    for which in ("first", "again, warm"):
                        visitor.open("/class", **{"class": name})
                        for side in ("right", "wrong"):
                            tile = visitor.page.locator(f".side-of.{side} a.tile").first
                            href = tile.get_attribute("href") or ""
                            patch = int(re.search(r"[?&]patch=(\d+)", href)[1])  # type: ignore[index]
                            visitor.arm("click", "opened", patch=patch, image=patch // served.cells)
                            tile.click()
                            what = f"patch, {which}"
                            self._add(what, visitor.result(what))
                            visitor.settle()
                            visitor.page.keyboard.press("Escape")

    def pages(self) -> None:
        """One more page of an endless list, from a scroll to the end of what there is."""
        with serving(self._index) as served:
            for name in self._some(served.classes, SCROLLED):
                with self._visitor(served) as visitor:
                    visitor.open("/class", **{"class": name})
                    for _ in range(SCROLLED):
                        if visitor.page.locator(".side-of .end").count() == 0:
                            break
                        what = "24 more patches in each column"
                        self._add(what, visitor.scroll(what, "morePatches"))
                        visitor.settle()
            for _ in range(-(-self._repeats // SCROLLED)):
                with self._visitor(served) as visitor:
                    visitor.open()
                    for _ in range(SCROLLED):
                        if visitor.page.locator("main > .end").count() == 0:
                            break
                        what = "24 more classes"
                        self._add(what, visitor.scroll(what, "moreClasses"))
                        visitor.settle()

    def letters(self) -> None:
        """The classes that have what was typed in their name, from a letter on."""
        with serving(self._index) as served:
            for name in self._some(served.classes, TYPED):
                with self._visitor(served) as visitor:
                    visitor.open()
                    visitor.search("")
                    visitor.settle()
                    for place, letter in enumerate(name[:TYPED]):
                        if letter.isspace():
                            break
                        visitor.arm("input", "listed", text=name[: place + 1].lower())
                        visitor.page.keyboard.type(letter)
                        what = "suggestions, from a letter"
                        self._add(what, visitor.result(what))
                        visitor.settle()

    def weigh(self) -> None:
        """What is sent for a page, until nothing more is loaded."""
        with serving(self._index) as served, self._visitor(served) as visitor:
            name = served.whole[min(1, len(served.whole) - 1)]

            def opened() -> None:
                visitor.page.locator("a.tile").first.click()
                visitor.settle()

            for what, act in (
                ("start page, cold", visitor.open),
                ("start page, warm", visitor.open),
                ("class page, after the start page", lambda: visitor.open("/class", **{"class": name})),
                ("patch, opened there", opened),
            ):
                self._weigh(visitor, what, act)
        with serving(self._index) as served, self._visitor(served) as visitor:
            self._weigh(visitor, "class page, cold", lambda: visitor.open("/class", **{"class": name}))

    def _weigh(self, visitor: Visitor, what: str, act: Callable[[], None]) -> None:
        with visitor.listening() as found:
            act()
        groups: dict[str, list[float]] = {name: [] for name in ("page", "json", "pictures")}
        for address, size in found.values():
            path = urlsplit(address).path
            groups["page" if "/api/" not in path else "pictures" if path.endswith(".png") else "json"].append(size)
        counts = {f"{name}_requests": len(sizes) for name, sizes in groups.items()}
        bytes_ = {f"{name}_kB": round(sum(sizes) / 1000, 1) for name, sizes in groups.items()}
        both = [item for pair in zip(counts.items(), bytes_.items(), strict=True) for item in pair]
        total = sum(map(sum, groups.values()))
        self.weights.append({"what": what, "requests": len(found), "kB": round(total / 1000, 1), **dict(both)})

    def _add(self, what: str, milliseconds: float, goal: float | None = None) -> None:
        self._times[what].append((milliseconds, self._others.share))
        if goal is not None:
            self._goals[what] = goal

    def _some(self, names: Sequence[str], each: int = 1) -> Sequence[str]:
        """Of which there are as many repeats as wanted, if each gives so many; from all parts of the list."""
        count = min(-(-self._repeats // each), len(names))
        return [names[place * len(names) // count] for place in range(count)]

    @contextmanager
    def _visitor(self, served: Served) -> Iterator[Visitor]:
        visitor = Visitor(self._browser, served, self.requests, self._others)
        try:
            yield visitor
        finally:
            visitor.close()


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("indexes", type=Path, nargs="*")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--chromium", help="the program; by default Playwright's")
    arguments = parser.parse_args()
    generated: Path = arguments.folder / "index"
    generate(generated, shown=True)
    described = machine()
    print(json.dumps(described))
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=QUIET)
        described["chromium"] = browser.version
        for index in (*arguments.indexes, generated):
            bench = Bench(browser, index, arguments.repeats)
            bench.measure()
            slow = sorted(bench.requests.slow, reverse=True)[:20]
            tables = {"rows": bench.rows(), "weights": bench.weights, "requests": bench.requests.rows()}
            for table in tables.values():
                print(f"\n{index.name}")
                print_table(table)
            for milliseconds, address in slow:
                print(f"{milliseconds:8.1f} ms  {address}")
            found.append({"index": index.name, **tables, "slow": slow})
            write_json(arguments.folder / "page.json", {"machine": described, "indexes": found})
        browser.close()


if __name__ == "__main__":
    main()
