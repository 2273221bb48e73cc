"""`bagindex mcp`."""

from __future__ import annotations

import ipaddress
import os
import signal
from typing import Annotated

import typer

from bagindex.errors import SettingsError
from bagindex_cli import completing, stopping
from bagindex_cli.common import remark


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("mcp")(mcp)


def mcp(
    index: Annotated[
        list[str] | None,
        typer.Option(
            "--index",
            "-i",
            metavar="NAME|PATH",
            help="An index to ask; give it again for several.",
            autocompletion=completing.indexes,
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Listen there, on this machine, instead of stdin and stdout."),
    ] = None,
) -> None:
    """Let agents ask an index, by the Model Context Protocol, reading only.

    An agent's program starts it and speaks to it over stdin and stdout. With --http it waits at http://HOST:PORT/mcp
    for programs of this machine.

        bagindex mcp
        bagindex mcp -i photos -i imagenet
        bagindex mcp --http 127.0.0.1:8401
    """
    place = None if http is None else _place(http)
    try:
        from bagindex.agents import server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise SettingsError("bagindex mcp needs the protocol's library: pip install 'bagindex[mcp]'") from None
    if place is None:
        # A thread waits for the other side's next line, and would go on to.
        signal.signal(signal.SIGINT, _leave)
    server.run(index or (), remark, http=place)


def _leave(*_: object) -> None:
    stopping.say()
    os._exit(stopping.status())


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or not 0 <= int(port) < 65536:
        raise typer.BadParameter("HOST:PORT, as in --http 127.0.0.1:8401")
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here:
        raise typer.BadParameter(f"{host} is not this machine alone: there is no token, so that only 127.0.0.1 will do")
    return host, int(port)
