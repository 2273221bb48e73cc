"""The objects below one place of an object store: list, read ranges, put under a condition, delete.

Everything is tried again, with bounds; see `bagindex.remote.trouble`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from bagindex.errors import StoreError
from bagindex.remote.places import Place
from bagindex.remote.trouble import Absent, Conflict, attempt, not_installed

THREADS = 16
"""Requests at a time."""
_PART = 16 * 2**20
"""Bytes of a part of a large object; so many, times `_PARTS`, are in memory while it is put."""
_PARTS = 4
_TAGS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "mtime", "last_modified", "LastModified", "created")
"""Under which names fsspec's file systems say what changes with an object's content."""
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    # Trying again is ours, so that there is one bound.
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 15, "retries": {"total_max_attempts": 1}}},
}


@dataclass(frozen=True)
class Listed:
    """An object: its size in bytes, and a `tag` that changes with its content."""

    size: int
    tag: str


@dataclass
class Traffic:
    """What went over the network: requests that were answered, and bytes of content."""

    requests: int = 0
    read: int = 0
    written: int = 0


class ObjectStore:
    """The objects below a place, by their names relative to it. Safe to use from several threads.

    Args:
        place: where.

    All that asks the store raises a StoreError where what speaks its protocol is not installed, or cannot be set up.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.traffic = Traffic()
        self._counting = Lock()
        self._made: Any = None
        self._s3 = place.protocol in ("s3", "s3a")

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process has connections of its own."""
        return ObjectStore, (self.place,)

    @property
    def conditional(self) -> bool:
        """Whether the store itself refuses to put an object that is there already, whoever else puts it."""
        return self.place.protocol in ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")

    def listing(self) -> dict[str, Listed]:
        """All objects, by name.

        Raises:
            StoreError: they cannot be listed, or there is no bucket.
        """
        try:
            found = self._ask("list it", partial(self._fs.find, self.place.path, detail=True))
        except Absent:
            return {}
        self._count(1 + len(found) // 1000)
        below = f"{self.place.path}/"
        files = {path.strip("/"): info for path, info in found.items() if info.get("type") == "file"}
        return {path[len(below) :]: _listed(info) for path, info in files.items() if path.startswith(below)}

    def find(self, name: str) -> Listed | None:
        """An object; None where there is none."""
        try:
            found = self._ask(f"look for {name}", partial(self._fs.info, self._path(name)))
        except Absent:
            return None
        self._count(1)
        return _listed(found)

    def read(self, name: str, start: int, end: int, tag: str | None = None) -> bytes:
        """The bytes of an object from `start` to before `end`, which must be there.

        Raises:
            Absent: there is no such object.
            Conflict: it is another than the one with that tag.
            StoreError: it cannot be read.
        """

        def request() -> bytes:
            data = self._range(name, start, end, tag)
            if len(data) != end - start:
                raise EOFError(f"{len(data)} bytes came of {end - start}")
            return data

        if start == end:
            return b""
        data: bytes = self._ask(f"read {name}", request)
        self._count(1, read=len(data))
        if tag is not None and not self._s3:  # others cannot be asked for it under this condition
            found = self.find(name)
            if found is None or found.tag != tag:
                raise Conflict(f"{name} has changed")
        return data

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]], tag: str | None = None) -> list[bytes]:
        """Several ranges of an object, beside each other; raises as `read`."""
        if len(ranges) == 1:
            return [self.read(name, ranges[0][0], ranges[0][1], tag)]
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(lambda each: self.read(name, each[0], each[1], tag), ranges))

    def put(self, name: str, content: bytes | Path, *, new: bool = False, over: str | None = None) -> Listed:
        """Put an object, whole or not at all.

        Args:
            name: its name.
            content: its bytes, or the file that has them.
            new: only where there is none.
            over: only where the one that is there has this tag; stores other than S3 are asked just before.

        Raises:
            Conflict: the condition does not hold, or did not when the request was sent again after its answer was lost.
            StoreError: it cannot be put.
        """
        path = self._path(name)
        options: dict[str, Any] = {}
        if new:
            options["mode"] = "create"
        elif over is not None and self._s3:
            options["IfMatch"] = over
        elif over is not None:
            found = self.find(name)
            if found is None or found.tag != over:
                raise Conflict(f"{name} has changed")
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        if isinstance(content, Path) and size <= _PART:
            content = content.read_bytes()
        if isinstance(content, bytes):
            answer = self._ask(f"write {name}", lambda: self._fs.pipe_file(path, content, **options))
        else:
            parts = {"chunksize": _PART, "max_concurrency": _PARTS} if self._s3 else {}
            answer = self._ask(f"write {name}", lambda: self._fs.put_file(str(content), path, **options, **parts))
        self._count(1, written=size)
        if isinstance(answer, dict) and answer.get("ETag"):  # S3's
            return Listed(size, str(answer["ETag"]))
        made = self.find(name)
        if made is None or made.size != size:
            raise StoreError(f"{self.place}/{name} is not what was just written: something else writes there, end it")
        return made

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, those that are there.

        Raises:
            StoreError: they cannot be deleted.
        """
        paths = [self._path(name) for name in names]

        def request(some: Sequence[str]) -> None:
            try:
                self._fs.rm(list(some))
            except FileNotFoundError:
                for path in some:  # one was gone: the others still have to go
                    if self._fs.exists(path):
                        self._fs.rm_file(path)

        for start in range(0, len(paths), 500):
            part = paths[start : start + 500]
            self._ask(f"delete {len(part)} objects", partial(request, part))
            self._count(1)

    def _path(self, name: str) -> str:
        return f"{self.place.path}/{name}"

    @property
    def _fs(self) -> Any:
        if self._made is None:
            self._made = _filesystem(self.place)
        return self._made

    def _ask(self, what: str, request: Callable[[], Any]) -> Any:
        try:
            return attempt(self.place, what, request)
        except StoreError:
            self._made = None  # what was missing, credentials perhaps, may be there the next time
            raise

    def _count(self, requests: int, read: int = 0, written: int = 0) -> None:
        with self._counting:
            self.traffic.requests += requests
            self.traffic.read += read
            self.traffic.written += written

    def _range(self, name: str, start: int, end: int, tag: str | None) -> bytes:
        path = self._path(name)
        if not self._s3:
            data: bytes = self._fs.cat_file(path, start=start, end=end)
            return data
        from fsspec.asyn import sync

        bucket, _, key = path.partition("/")

        async def get() -> bytes:
            condition = {} if tag is None else {"IfMatch": tag}
            answer = await self._fs._call_s3(
                "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", **condition
            )
            async with answer["Body"] as body:
                content: bytes = await body.read()
                return content

        content: bytes = sync(self._fs.loop, get)
        return content


def _filesystem(place: Place) -> Any:
    import fsspec

    try:
        # fsspec would keep what it was made with, environment and all.
        made = fsspec.filesystem(
            place.protocol, use_listings_cache=False, skip_instance_cache=True, **_SETTINGS.get(place.protocol, {})
        )
        made.retries = 1  # s3fs would try again by itself
        return made
    except ImportError as error:
        raise not_installed(place) from error
    except ValueError as error:
        raise StoreError(f"{place} cannot be opened ({error}): give s3://, gs:// or az://") from None


def _listed(info: Mapping[str, Any]) -> Listed:
    tag = next((info[name] for name in _TAGS if info.get(name) is not None), "")
    # Some say the same time now as a number and now as a date.
    return Listed(int(info["size"] or 0), str(tag.timestamp() if isinstance(tag, datetime) else tag))
