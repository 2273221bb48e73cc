"""A decoder process that does not wait long for its next picture."""

from __future__ import annotations

from bagindex.decoders import worker


def main() -> None:
    """Decode."""
    worker._IDLE = 0.3
    worker.main()
