"""The command line: parse, call `bagindex.Index`, print."""

from bagindex_cli.app import main

__all__ = ["main"]
