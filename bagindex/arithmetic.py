"""Which float32 torch calculates with. Its settings belong to the process, and models run in several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_changed = threading.Condition()
_users = 0
_tf32 = False
_settings = ExitStack()


@contextmanager
def float32(tf32: bool = False) -> Iterator[None]:
    """Float32 that is float32, and no kernel chosen by its time, so that bytes can be the same again.

    TensorFloat-32, which cuDNN takes by default, costs accuracy; `tf32` allows it in convolutions, and there alone.
    Threads that ask for the same share the settings; others wait until these have left. The last one restores them.
    """
    global _users, _tf32
    with _changed:
        _changed.wait_for(lambda: not _users or _tf32 == tf32)
        if not _users:
            _settings.enter_context(_set(tf32))
            _tf32 = tf32
        _users += 1
    try:
        yield
    finally:
        with _changed:
            _users -= 1
            if not _users:
                _settings.close()
                _changed.notify_all()


@contextmanager
def _set(tf32: bool) -> Iterator[None]:
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
