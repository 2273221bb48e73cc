"""Ctrl-C and SIGTERM: one line, and the exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bagindex_cli
from bagindex import Index


def ended(code: str, *arguments: object) -> tuple[int, str, str]:
    """Run a program that ends in a command: status, stdout, stderr."""
    command = [sys.executable, "-c", f"import sys\n{code}\nimport bagindex_cli; bagindex_cli.main()"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_a_command_that_is_stopped_while_it_is_imported() -> None:
    # A file of source that is run as text, as dataclasses are made: after it, Python would end as if killed.
    code = "import importlib.abc\nclass Finder(importlib.abc.MetaPathFinder):\n"
    code += "    def find_spec(self, name, *_):\n        if name == 'typer': exec('raise KeyboardInterrupt')\n"
    code += "sys.meta_path.insert(0, Finder())"
    assert ended(code, "list") == (130, "", "bagindex: stopped\n")


@pytest.mark.parametrize(
    ("command", "where", "said"),
    [
        ("top-patches a", "bagindex.index.Index.top_patches", ""),
        ("report a -o x", "bagindex.index.Index.report", ""),
        ("verify", "bagindex.index.Index.verify", ""),
        (
            "reproduce accuracy -o x",
            "bagindex.index.Index.reproduce",
            "; what networks have predicted is kept, and the ",
        ),
        ("index", "bagindex.index.Index.make_ann", "; what there was stays"),
        ("compact", "bagindex.index.Index.compact", ""),
    ],
)
def test_every_command_says_once_that_it_was_stopped(
    command: str, where: str, said: str, planted_index: Index, monkeypatch: pytest.MonkeyPatch, run, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(where, stopped)
    for _ in range(2):  # in one process, too
        result = run(*command.split(), "-i", planted_index.path)
        assert result.status == 130
        assert result.err.startswith(f"bagindex: stopped{said}")
        assert len(result.err.splitlines()) == 1


def test_the_entry_point_is_there() -> None:
    assert bagindex_cli.__all__ == ["main"]
