"""`bagindex serve`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from bagindex_cli import completing
from bagindex_cli.common import remark

if TYPE_CHECKING:
    from bagindex.service.asking import Service


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    index: Annotated[
        list[str] | None,
        typer.Option(
            "--index",
            "-i",
            metavar="NAME|PATH",
            help="An index to serve; give it again for several.",
            autocompletion=completing.indexes,
        ),
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8400,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="BAGINDEX_TOKEN", show_envvar=True, help="What requests must show; else made where one is needed."
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the address in the browser.")] = False,
    allow_root: Annotated[
        bool, typer.Option("--allow-root", help="Let root serve elsewhere than on this machine.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further name under which the service may be asked; several."),
    ] = None,
    sql: Annotated[
        bool | None, typer.Option("--sql/--no-sql", help="Answer SQL; by default on this machine only.")
    ] = None,
    workers_sql: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="SQL queries at a time.")] = 2,
) -> None:
    """Answer questions over HTTP, reading only: JSON, Arrow and pictures under /api/v1.

    It listens on this machine. Elsewhere requests need a token, which is printed once if none is given.

        bagindex serve
        bagindex serve -i photos -i imagenet --port 9000
        BAGINDEX_TOKEN=... bagindex serve --host 0.0.0.0 --allow-host bags.example.org
    """
    from bagindex.service import server

    settings, made = server.settings_for(
        host, token=token, allow_root=allow_root, hosts=allow_host or (), sql=sql, sql_workers=workers_sql
    )

    def announce(address: str, service: Service) -> None:
        for text in service.remarks:
            remark(text)
        typer.echo(f"serving {', '.join(service.pools)} at {address}")
        if settings.access.token is not None:
            # What comes after # a browser keeps to itself: the page takes the token from there.
            address = f"{address}#token={quote(settings.access.token, safe='')}"
        if made:
            remark(f"requests need the header: Authorization: Bearer {settings.access.token}")
        # A token that was given is a secret of who gave it: it must not get into a log.
        if made or (settings.access.token is not None and sys.stderr.isatty()):
            remark(f"in a browser: {address}")
        if open_:
            import threading
            import webbrowser

            # A browser in the terminal keeps its caller until it is closed.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    server.serve(index or (), settings, port=port, announce=announce)
