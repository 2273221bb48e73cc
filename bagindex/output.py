"""Rows to text, JSON, CSV or a file."""

from __future__ import annotations

import csv
import datetime
import decimal
import errno
import html
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from bagindex.errors import OutputError

_LONG = 32
"""Longer lists and bytes are cut in tables; JSON, CSV and files have them whole."""
_LEAST_CELL = 14
"""Characters that a text keeps in a narrow terminal."""
_LONG_CELL = 300
"""Characters of a cell that a notebook shows."""
Rows = Sequence[Mapping[str, Any]]


def to_json(rows: Rows) -> str:
    """A list of objects, one on each line. What JSON lacks: NaN and infinities become null, bytes hexadecimal."""
    lines = [json.dumps(_plain(row), ensure_ascii=False) for row in rows]
    return "[" + ",\n ".join(lines) + "]\n"


def to_json_value(value: Any) -> str:
    """One value, on one line; as for `to_json`."""
    return json.dumps(_plain(value), ensure_ascii=False)


def to_csv(columns: Sequence[str], rows: Rows, header: bool = True) -> str:
    """RFC 4180 with a header and LF; lists and structures as JSON, NULL as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    return text.getvalue()


def print_table(
    columns: Sequence[str], rows: Rows, file: TextIO | None = None, title: str | None = None, width: int | None = None
) -> None:
    """Print a table; on a terminal it fits the width, elsewhere each row is one line, whole."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=file, highlight=False, emoji=False, markup=False)
    cells: list[list[str]] | None = [[_shown(row[name]) for name in columns] for row in rows]
    if not console.is_terminal:
        console = Console(
            file=file, highlight=False, emoji=False, markup=False, width=width or 10_000, color_system=None
        )
    else:
        cells = _fitted(columns, rows, console.width)
        if cells is None:
            return _print_records(columns, rows, file, title)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        numeric = all(_is_number(row[name]) for row in rows)
        table.add_column(printable(name), justify="right" if numeric and rows else "left", overflow="fold")
    for line in cells or ():
        table.add_row(*line)
    if title:  # not the table's own, which is wrapped at the table's width
        print(f"{printable(title)}\n", file=file)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    print("\n".join(lines).strip("\n"), file=file)


def _fitted(columns: Sequence[str], rows: Rows, width: int) -> list[list[str]] | None:
    """The cells of a table that fits a terminal: as they are, else with fewer digits, else with long words cut in the
    middle; None where that does not do.
    """
    for digits in (6, 4):
        cells = [[_shown(row[name], digits) for name in columns] for row in rows]
        lines = [[printable(name) for name in columns], *cells]
        widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
        excess = sum(each + 3 for each in widths) - width
        if excess <= 0:
            return cells
    for place in sorted(range(len(columns)), key=lambda place: -widths[place]):
        if all(isinstance(row[columns[place]], str | None) for row in rows):
            room = max(_LEAST_CELL, len(lines[0][place]), widths[place] - max(0, excess))
            excess -= max(0, widths[place] - room)
            cells = [[*line[:place], _cut(line[place], room), *line[place + 1 :]] for line in cells]
    return cells if excess <= 0 else None


def _cut(text: str, most: int) -> str:
    """A text with its middle left out, where it is too long: names begin alike, and paths end alike."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def _print_records(columns: Sequence[str], rows: Rows, file: TextIO | None, title: str | None) -> None:
    """A line for each cell: for tables wider than the terminal, whose numbers would be broken over lines."""
    if title:
        print(printable(title), file=file)
    width = max((len(printable(name)) for name in columns), default=0)
    for number, row in enumerate(rows, start=1):
        print(f"── {number} ──", file=file)
        for name in columns:
            print(f"{printable(name):{width}}  {_shown(row[name])}", file=file)


def table_text(columns: Sequence[str], rows: Rows, title: str | None = None, width: int | None = None) -> str:
    """What `print_table` prints elsewhere than on a terminal."""
    text = io.StringIO()
    print_table(columns, rows, text, title, width)
    return text.getvalue()


def to_html(columns: Sequence[str], rows: Rows, title: str = "", note: str = "") -> str:
    """A table for a notebook, light or dark: whatever the values are, they are shown as text."""
    right = {name for name in columns if rows and all(_is_number(row[name]) for row in rows)}
    head = "".join(_html_cell("th", printable(name), name in right) for name in columns)
    body = "".join(
        f"<tr>{''.join(_html_cell('td', _shown(row[name]), name in right) for name in columns)}</tr>\n" for row in rows
    )
    above = f"<p><b>{html.escape(printable(title))}</b></p>\n" if title else ""
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n" if columns else ""
    return above + table + (f"<p>{html.escape(printable(note))}</p>\n" if note else "")


def _html_cell(kind: str, text: str, right: bool) -> str:
    # Notebooks put everything on the right, and never break a long word.
    style = f"text-align: {'right' if right else 'left'}"
    if len(text) > _LONG or "\n" in text:
        style += "; white-space: pre-wrap; overflow-wrap: anywhere; min-width: 12em; max-width: 40em"
    # What is too long for a cell is whole where the mouse rests.
    whole = f' title="{html.escape(text)}"' if len(text) > _LONG_CELL else ""
    return f'<{kind} style="{style}"{whole}>{html.escape(text if not whole else text[:_LONG_CELL] + "…")}</{kind}>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | None) and not isinstance(value, bool)


def check_ending(path: Path, endings: Iterable[str]) -> None:
    """See whether a file's ending is one of those that can be written: before work begins whose result it gets.

    Raises:
        OutputError: it is not.
    """
    if path.suffix.lower() not in endings:
        raise OutputError(f"{path.name}: the ending says what to write, one of {', '.join(endings)}")


def save(path: str | os.PathLike[str], writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Write a file by its ending: aside first, then renamed, so that a failure leaves what was there.

    Raises:
        OutputError: the ending is none of `writers`', or the file cannot be written.
    """
    target = Path(path)
    check_ending(target, writers)
    writer = writers[target.suffix.lower()]
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        writer(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}{_advice(error, target)}") from None
    finally:
        with suppress(OSError):  # on a disk that is read-only there is nothing to remove
            temporary.unlink(missing_ok=True)


def _advice(error: OSError, target: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"; make the folder {target.parent} first"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "; make room, or give a place on another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "; give a place that you may write to"
    return ""


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that gets its name when all of it is written; a failure leaves nothing.

    Args:
        path: it is not there yet, or empty.

    Raises:
        OutputError: there is something, or it cannot be written.
    """
    target = Path(path)
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise OutputError(f"there is something at {target}: give the name of a new folder, or remove it")
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}{_advice(error, target)}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _cell(value: Any) -> Any:
    plain = _plain(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, list | dict) else plain


def _shown(value: Any, digits: int = 6) -> str:
    if isinstance(value, bytes) and len(value) > _LONG:
        return f"{value[:16].hex()}… ({len(value):,} bytes)"
    if isinstance(value, list) and len(value) > _LONG:
        return f"{_shown(value[:4])[:-1]}, … ({len(value):,} values)]"
    plain = _plain(value) if not isinstance(value, float) else value
    if plain is None:
        return ""
    if isinstance(plain, float):
        return f"{plain:.{digits}g}"
    return printable(json.dumps(plain, ensure_ascii=False) if isinstance(plain, list | dict) else str(plain))


def printable(text: str) -> str:
    """A text for a terminal, control characters as escapes."""
    # File and class names may hold control characters, which would act on the terminal; EXPLAIN has many lines.
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
