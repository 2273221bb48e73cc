"""The server: checks how it is to be run, binds the address, serves until it is told to stop."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from bagindex.errors import SettingsError
from bagindex.service.access import Access, is_loopback
from bagindex.service.app import create_app
from bagindex.service.asking import Service
from bagindex.service.connections import MOST, Connection, most_connections
from bagindex.service.settings import Settings

_SHORTEST_TOKEN = 16
_GRACE = 10
"""Seconds that requests under way have when the service is told to end."""
_BACKLOG = 2048


def settings_for(
    host: str,
    *,
    token: str | None = None,
    allow_root: bool = False,
    hosts: Sequence[str] = (),
    sql: bool | None = None,
    sql_workers: int = 2,
) -> tuple[Settings, bool]:
    """How the service is run at an address.

    Args:
        host: the address to listen on.
        token: what requests must show; elsewhere than on loopback one is made if none is given.
        allow_root: whether root may serve elsewhere than on loopback.
        hosts: further names under which the service may be asked.
        sql: whether SQL is answered; by default on loopback only.
        sql_workers: queries of one index at a time.

    Returns:
        The settings, and whether the token was made.

    Raises:
        SettingsError: that is not safe.
    """
    local = is_loopback(host)
    if not local and hasattr(os, "geteuid") and os.geteuid() == 0 and not allow_root:
        raise SettingsError(f"root does not serve on {host}: run as another user, or give --allow-root")
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise SettingsError(f"a token has at least {_SHORTEST_TOKEN} characters: leave --token out to have one made")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingsError("a token is printable ASCII without spaces")
    made = token is None and not local
    access = Access(
        host=host,
        hosts=frozenset(each.lower().rstrip(".") for each in hosts),
        token=secrets.token_urlsafe(32) if made else token,
    )
    return Settings(access=access, sql=local if sql is None else sql, sql_workers=sql_workers), made


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket that listens. `option` says where another port is given.

    Raises:
        SettingsError: the port is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{host} is no address: give another --host ({error})") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise SettingsError(
            f"cannot listen on port {port} of {host} ({error.strerror}): another program may have it; "
            f"give another {option} (port 0 takes a free one)"
        ) from None
    return bound


def address_of(bound: socket.socket, host: str) -> str:
    """The address to open in a browser."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{bound.getsockname()[1]}/"


def configure(service: Service, connections: int = MOST) -> uvicorn.Config:
    """How uvicorn runs a service, with so many connections at a time."""
    return uvicorn.Config(
        create_app(service),
        http=Connection,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=connections,
        # So many are accepted at once, and twice as many more before those of them are closed that are too many: of the
        # files that `most_connections` leaves, three quarters.
        backlog=min(_BACKLOG, connections // 4),
    )


def serve(
    indexes: Sequence[str | Path],
    settings: Settings,
    *,
    port: int,
    announce: Callable[[str, Service], None] = lambda _address, _service: None,
) -> None:
    """Serve until SIGTERM, which lets requests under way end, or Ctrl-C, which does not.

    Args:
        indexes: names or paths; none: the one that `Index.open` takes.
        settings: how.
        port: where; 0 takes a free one.
        announce: hears once of the address, when the service answers there.

    Raises:
        BagindexError: an index cannot be opened, or the port is taken.
        KeyboardInterrupt: by Ctrl-C.
    """
    host = settings.access.host
    bound = bind(host, port)
    try:
        service = Service(indexes, settings)
        server = _Server(configure(service, most_connections()), lambda: announce(address_of(bound, host), service))
        server.run(sockets=[bound])
    finally:
        bound.close()
    service.close()
    _leave(server.interrupted)


class _Server(uvicorn.Server):
    """Says when it has started, and ends as it is told to."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = started
        self.interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signals again when it has ended, so that a service that was stopped in order would look
        # killed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {each: signal.signal(each, self.handle_exit) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True
        if sig == signal.SIGINT:
            self.interrupted = self.force_exit = True
            # Requests that are broken off would be logged as errors.
            logging.getLogger("uvicorn.error").disabled = True


def _leave(interrupted: bool) -> None:
    """End at once, though threads may still compute for those who have gone."""
    if any(thread.name.startswith("bagindex-") for thread in threading.enumerate()):
        # Python waits for threads at its end, and a question may take minutes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130 if interrupted else 0)
    if interrupted:
        raise KeyboardInterrupt
