"""Why a file of a source is not in an index. Imports nothing, so that what decodes pictures starts quickly."""

from __future__ import annotations

from enum import StrEnum


class RejectCode(StrEnum):
    """The codes in the table `rejects`."""

    CHANGED = "changed"
    DAMAGED = "damaged"
    DECODER_CRASHED = "decoder_crashed"
    DECODER_TIMEOUT = "decoder_timeout"
    EMPTY = "empty"
    IO_ERROR = "io_error"
    MISSING = "missing"
    NOT_AN_IMAGE = "not_an_image"
    NOT_REGULAR = "not_regular"
    PERMISSION = "permission"
    SYMLINK = "symlink"
    TOO_ELONGATED = "too_elongated"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    TRUNCATED = "truncated"
    UNSUPPORTED = "unsupported"
