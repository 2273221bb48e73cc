"""The command line: parse, call `bagindex.Index`, print."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. Exit status: 0, 1 for an error, 2 for wrong usage, 130 when interrupted, 143 by SIGTERM."""
    try:
        # Importing takes a moment, in which it may be stopped as well.
        from bagindex_cli import app

        app.main()
    except KeyboardInterrupt:
        from bagindex_cli import stopping

        stopping.say()
        # Python ends as if killed by SIGINT where the last source that was run as text was interrupted: that is this.
        exec("")
        sys.exit(stopping.status())
