"""A build's progress, for a person to watch."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

from bagindex.observer import BuildObserver
from bagindex.text import bytes_text
from bagindex_cli.common import remark
from bagindex_cli.failing import thread_failed
from bagindex_cli.stopping import interrupt
from bagindex_cli.weights import FetchScreen

_REMARK_SECONDS = 10

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from bagindex.plan import Estimate


class Screen(BuildObserver):
    """A build's progress on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._fetch: FetchScreen | None = None
        self._relating: Steps | None = None
        self._done = 0
        self._next = 3.0
        self._next_comparison = 0.0
        self._total = 0
        self._started = 0.0

    def __enter__(self) -> Screen:
        self._handler = signal.signal(signal.SIGTERM, interrupt)
        self._hook, threading.excepthook = threading.excepthook, thread_failed
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._handler)
        threading.excepthook = self._hook
        self._end_fetch()
        if self._relating is not None:
            self._relating.__exit__()
        if self._progress is not None:
            self._progress.stop()
        if kind is KeyboardInterrupt:
            remark("stopped; what is committed stays, and the same command goes on from there")

    def fetched(self, model: str, done: int, total: int | None) -> None:
        if self._fetch is None:
            self._fetch = FetchScreen(model)
        self._fetch.advanced(done, total)
        if done == total:
            self._end_fetch()

    def _end_fetch(self) -> None:
        if self._fetch is not None:
            self._fetch.__exit__(None)
            self._fetch = None

    def compared(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next_comparison:
            remark(f"comparing precisions: {done:,} of {total:,} images")
            self._next_comparison = time.monotonic() + _REMARK_SECONDS
        self._started = time.monotonic()  # the files' rate begins afterwards

    def planned(self, estimate: Estimate, free: int) -> None:
        tables = ", ".join(f"{name} {bytes_text(size)}" for name, size in estimate.tables.items() if size > 1_000_000)
        remark(
            f"{estimate.images:,} files, {estimate.patches:,} patches, about {bytes_text(estimate.total)} "
            f"({tables or 'all small'}) to write; {bytes_text(free)} are free"
        )
        self._total = estimate.images
        self._started = time.monotonic()
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
        )
        self._progress.start()
        self._task = self._progress.add_task("indexing", total=estimate.images, rate="")

    def advanced(self, files: int) -> None:
        self._done += files
        elapsed = time.monotonic() - self._started
        rate = f"{self._done / elapsed:.1f} images/s" if elapsed > 1 else ""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=files, rate=rate)
        elif elapsed >= self._next and rate:
            left = (self._total - self._done) * elapsed / self._done
            remark(f"{self._done:,} of {self._total:,} files, {rate}, {left:.0f} s left")
            self._next = elapsed + _REMARK_SECONDS

    def related(self, model: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._relating is None:
            self._relating = relating(model)
        self._relating.at(done, total)
        if done == total:
            self._relating.__exit__()
            self._relating = None

    def note(self, text: str) -> None:
        remark(text)


class Steps:
    """Work in steps that takes longer than a second, on stderr: a bar on a terminal, a line now and then elsewhere.

    Args:
        what: the work.
        opening: a line to begin with, once the first step is heard of: the next may be minutes away.
    """

    def __init__(self, what: str, opening: str = "") -> None:
        self._what = what
        self._opening = opening
        self._started = self._next = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away, to ask the person something, say."""
        if self._progress is not None:
            self._progress.stop()

    def at(self, done: int, total: int) -> None:
        """So many of so many steps are done."""
        from rich.console import Console
        from rich.progress import Progress

        if self._opening:
            remark(self._opening)
            self._opening = ""
        now = time.monotonic()
        if now - self._started < 1:
            return
        console = Console(stderr=True)
        if console.is_terminal:
            if self._progress is None:
                self._progress = Progress(console=console, transient=True)
                self._progress.start()
                self._task = self._progress.add_task(self._what)
            if self._task is not None:
                self._progress.update(self._task, completed=done, total=total)
        elif now - self._next >= _REMARK_SECONDS:
            self._next = now
            remark(f"{self._what}: {done} of {total} steps")


class WorkScreen:
    """The progress of one piece of work after the other.

    Args:
        stopped: what to say after Ctrl-C; nothing where nothing is kept.
    """

    def __init__(self, stopped: str = "") -> None:
        self._stopped = stopped
        self._what = ""
        self._steps: Steps | None = None

    def __enter__(self) -> WorkScreen:
        self._handler = signal.signal(signal.SIGTERM, interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._handler)
        self._stop()
        if kind is KeyboardInterrupt and self._stopped:
            remark(self._stopped)

    def at(self, what: str, done: int, total: int) -> None:
        """So many of so many steps of something are done."""
        if what != self._what or self._steps is None:
            self._stop()
            self._what, self._steps = what, Steps(what)
        self._steps.at(done, total)

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self._stop()
        remark(text)

    def _stop(self) -> None:
        if self._steps is not None:
            self._steps.stop()
            self._steps = None


def relating(model: str) -> Steps:
    """The making of a model's FAISS index."""
    return Steps(f"{model}: index for similar patches", f"{model}: making an index for similar patches")
