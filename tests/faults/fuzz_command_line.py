"""Command lines: any arguments end with status 0, 1 or 2, without a traceback, and write only what they are told to.

Of commands that build, train, serve or change an index, no line is run.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import typer
from hypothesis import strategies as st

from bagindex_cli import app, main
from faults import whole
from faults.apart import Apart
from faults.fuzz_target import REFUSED, TAKEN, Target
from faults.hostile import tree

_ASKING = (
    *("top-patches", "sql", "figure3", "report", "heatmap", "explain", "similar", "words", "why", "flip", "without"),
    *("shortcuts", "confusions", "info", "list", "verify"),
)
_WRITING = frozenset({"--again", "--show", "--watch", "--debug", "--help", "-h", "--install-completion"})
"""Options that are left out: they write to the index, or have nothing to do with it."""
_VALUES = st.one_of(
    st.sampled_from(
        [
            *("cat", "dog", "fish", "0", "1", "2", "-1", "9", "10,10", "1,2,3,4", "5,5,2,2", "0000.png", "./0000.png"),
            *("cat,dog", "linear", "l2", "cosine", "json", "csv", "table", "width > 1", "SELECT 1", "FROM images"),
            *(
                "10%",
                "nan",
                "1e999",
                "9" * 400,
                "9" * 400 + "," + "9" * 400,
                "none",
                "cpu",
                "edges",
                "",
                ".",
                "..",
                "-",
            ),
            *("--", "/dev/null"),
        ]
    ),
    st.integers(-(10**20), 10**20).map(str),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)
_OUTPUTS = st.sampled_from([f"out.{ending}" for ending in ("png", "json", "csv", "parquet", "html", "svg", "exe", "")])


@cache
def _commands() -> Mapping[str, Sequence[Any]]:
    """The parameters of each command."""
    group: Any = typer.main.get_command(app.app)
    return {name: group.commands[name].params for name in _ASKING}


def _options(command: str) -> st.SearchStrategy[list[str]]:
    """Some of a command's options, and arguments."""
    arguments: list[st.SearchStrategy[list[str]]] = []
    each: list[st.SearchStrategy[list[str]]] = []
    for parameter in _commands()[command]:
        name = (*parameter.opts, "")[0]
        if _WRITING & {*parameter.opts} or "--index" in parameter.opts:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(_VALUES.map(lambda value: [value]))
        elif "--output" in parameter.opts:
            each.append(_OUTPUTS.map(lambda value: ["-o", value]))
        elif getattr(parameter, "is_flag", False):
            each.append(st.just([name]))
        else:
            each.append(_VALUES.map(lambda value, name=name: [name, value]))  # type: ignore[misc]
    chosen = st.lists(st.one_of(*each), max_size=4) if each else st.just([])
    return st.tuples(*arguments, chosen.map(_joined)).map(_joined)


def _joined(parts: Iterable[list[str]]) -> list[str]:
    return list(chain.from_iterable(parts))


def _lines() -> st.SearchStrategy[list[str]]:
    known = st.sampled_from(_ASKING).flatmap(lambda name: _options(name).map(lambda rest: [name, *rest]))
    return known | st.lists(_VALUES, max_size=3).map(lambda rest: ["why", *rest])


@contextmanager
def _command_line(folder: Path) -> Iterator[Callable[[Any], str]]:
    with Apart() as apart:
        (folder / "indexes").mkdir()
        root = whole.made(folder / "indexes", "tiny", apart)
    work = folder / "work"
    work.mkdir()
    had = tree(folder / "indexes")
    here = {"BAGINDEX_INDEX": str(root), "BAGINDEX_HOME": str(folder / "home"), "COLUMNS": "80"}

    def run(arguments: list[str]) -> str:
        os.chdir(work)
        printed, said = io.StringIO(), io.StringIO()
        status: Any = 0
        with (
            mock.patch.object(sys, "argv", ["bagindex", *arguments]),
            mock.patch.dict(os.environ, here),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(said),
        ):
            try:
                main()
            except SystemExit as leaving:
                status = leaving.code or 0
        assert status in (0, 1, 2), status
        assert "this is a bug" not in said.getvalue(), said.getvalue()
        assert "Traceback" not in said.getvalue(), said.getvalue()
        strangers = {path.name for path in work.iterdir() if not path.name.startswith("out")}
        assert not strangers, f"wrote {strangers}"
        for path in work.iterdir():
            path.unlink()
        return TAKEN if status == 0 else REFUSED

    yield run
    os.chdir(folder)
    assert tree(folder / "indexes") == had, "a question has changed the index"
    assert {path.name for path in folder.iterdir()} <= {"indexes", "work", "home"}, "something was written beside"


TARGETS = {"command lines": Target(_lines(), _command_line, 0.4)}
