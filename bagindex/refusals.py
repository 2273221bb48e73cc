"""What a disk refuses, whatever library met it, as an error to act on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bagindex.errors import BagindexError, DiskError, SpaceError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk says that has no room, or may not take more."""
_FAILED = (errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENODEV, errno.ENXIO, errno.ESTALE)
_NO_REASON = "fsync failed"
"""What DuckDB says where it does not say why."""


@contextmanager
def refusals(root: Path) -> Iterator[None]:
    """Turn what the system refuses to whoever writes an index into an error for people.

    Args:
        root: the index's folder.

    Raises:
        SpaceError: the disk is full, or a quota or limit is reached.
        DiskError: it fails, or may not be written to.
    """
    try:
        yield
    except BagindexError:
        raise
    except Exception as error:
        code = _code(error)
        if code in FULL:
            larger = "allow larger files (`ulimit -f`, or the file system's limit)"
            raise SpaceError(
                f"{root} cannot be written any further ({os.strerror(code)}): "
                f"{larger if code == errno.EFBIG else 'make room'}, and run the same command again; what is committed "
                "stays"
            ) from error
        if code in _FAILED:
            raise DiskError(
                f"{root} cannot be written ({os.strerror(code)}): see whether its disk is sound and may be written to, "
                "and run the same command again; what is committed stays"
            ) from error
        raise


def _code(error: Exception) -> int:
    """What the system said; 0 where it said nothing. DuckDB and FAISS tell it in words only."""
    if isinstance(error, OSError):
        return error.errno or 0
    if _NO_REASON in str(error):
        return errno.EIO
    return next((code for code in (*FULL, *_FAILED) if os.strerror(code) in str(error)), 0)
