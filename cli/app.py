"""The typer app, and the one place where errors become messages."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from bagindex.errors import BagindexError
from bagindex_cli import (
    accounts,
    agents,
    attribution,
    build,
    change,
    demo,
    diff,
    export,
    failing,
    figures,
    look,
    model,
    patch_maps,
    pictures,
    plan,
    query,
    reproduce,
    serve,
    similar,
    stopping,
    train,
    weights,
    words,
)
from bagindex_cli.encoding import escape_what_is_lacking

app = typer.Typer(
    name="bagindex",
    help="Which local image evidence does a model decide on? Index every patch that a BagNet sees, and ask.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from bagindex import __version__

        typer.echo(f"bagindex {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""
    if debug:
        os.environ["BAGINDEX_DEBUG"] = "1"


for module in (
    demo,
    plan,
    build,
    query,
    figures,
    pictures,
    similar,
    words,
    accounts,
    patch_maps,
    serve,
    agents,
    look,
    diff,
    reproduce,
    attribution,
    model,
    export,
    change,
):
    module.register(app)
for module in (train, weights):
    module.register(app)


def main() -> None:
    """Run a command; see `bagindex_cli.main`."""
    stopping.begin()
    escape_what_is_lacking()
    try:
        app()
    except SystemExit as leaving:
        if leaving.code == stopping.INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
    except BagindexError as error:
        _fail(str(error), error)
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        _fail(failing.words(error), error)


def _fail(message: str, error: BaseException) -> None:
    failing.say(message, error)
    sys.exit(1)
