"""Errors that nobody has foreseen are said in words, and a thread that ends with one does not leave others waiting."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from bagindex_cli.failing import words

NO_MEMORY = "out of memory: give a smaller --batch-size or --image-size, or fewer --workers"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory", "a.parquet"),
        OSError("ZSTD compression failed: Allocation error : not enough memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:125] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        SystemError("error return without exception set"),
    ],
    ids=str,
)
def test_lack_of_memory_is_said_as_such(error: Exception) -> None:
    assert words(error) == NO_MEMORY


def test_other_errors_are_said_as_they_are() -> None:
    assert words(OSError(errno.EIO, "Input/output error", "a.parquet")) == "Input/output error (a.parquet)"
    assert words(ZeroDivisionError("division by zero")) == (
        "ZeroDivisionError: division by zero; this is a bug: please report it with what --debug shows"
    )


def test_a_thread_that_ends_with_an_error_ends_the_command() -> None:
    program = (
        "import threading; from bagindex_cli.screen import Screen\n"
        "def fail(): raise SystemError('error return without exception set')\n"
        "with Screen():\n"
        "    threading.Thread(target=fail).start()\n"
        "    threading.Event().wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, f"bagindex: a thread has ended: {NO_MEMORY}\n")
