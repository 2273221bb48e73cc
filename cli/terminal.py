"""Pictures in the terminal: in full where it can draw them (sixel, kitty), else in half-block characters.

textual-image draws. It would also ask the terminal what it can, while it is imported and again while it draws, and an
answer that comes late would stand in the user's prompt. So the question is put here, once, and the library is given no
terminal: what it would print is collected.
"""

from __future__ import annotations

import io
import os
import re
import select
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from bagindex_cli.common import remark
from bagindex_cli.stopping import interrupt

if TYPE_CHECKING:
    from PIL import Image

_PATIENCE = 1.0
"""Seconds to wait for the terminal's answer. All terminals in use give one, at once."""
_SILENCE = 0.02
"""Seconds after the last answer in which another may come all the same, through a multiplexer."""
_KITTY_QUESTION = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_CELL_QUESTION = "\x1b[16t"
_ATTRIBUTES_QUESTION = "\x1b[c"
"""Every terminal answers this one, and answers in order: it is asked last."""
_ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")
_KITTY = re.compile(rb"\x1b_Gi=31;OK")
_CELL = re.compile(rb"\x1b\[6;(\d+);(\d+)t")
_COLOUR_DEFINED = re.compile(r"#(\d+);2;\d+;\d+;\d+")
_NO_QUESTIONS = {"linux", "vt100", "vt102", "ansi"}
"""Kinds of terminals (TERM) that would print a question."""
_USUAL_CELL = (10, 20)
_STRIP = 40
"""Rows of characters that are drawn at a time, at most; kitty's way of placing a picture ends at 297."""


class Protocol(StrEnum):
    """How a terminal is given a picture."""

    SIXEL = "sixel"
    KITTY = "kitty"
    HALF_BLOCKS = "half-block characters"


@dataclass(frozen=True)
class Canvas:
    """What a picture is drawn on: a terminal of so many characters.

    `cell` is the (width, height) of a character in a picture's pixels; half-block characters show two pixels each.
    """

    protocol: Protocol
    columns: int
    rows: int
    cell: tuple[int, int]

    @property
    def width(self) -> int:
        """How many pixels wide a picture may be."""
        return self.columns * self.cell[0]

    @property
    def coarse(self) -> bool:
        """Whether it has so few pixels that words in a picture cannot be read."""
        return self.protocol is Protocol.HALF_BLOCKS


def show(picture: Image.Image) -> None:
    """Draw a picture, made smaller where the terminal is narrower; elsewhere than on a terminal only say so."""
    found = canvas()
    if found is None:
        return
    try:
        for strip in _strips(picture, found):
            sys.stdout.write(_encoded(strip, found))
            sys.stdout.flush()
    except BaseException:
        # In the middle of a picture a terminal takes for pixels whatever follows.
        sys.stdout.write("\x1b\\\x1b[0m\n")
        sys.stdout.flush()
        raise


def canvas() -> Canvas | None:
    """What there is to draw on; where there is nothing, a remark says why."""
    found = _canvas()
    if isinstance(found, str):
        remark(f"no pictures with --show: {found}")
        return None
    return found


@cache
def _canvas() -> Canvas | str:
    """What there is to draw on, or why there is nothing; the terminal is asked once."""
    if not sys.stdout.isatty():
        return "the output is no terminal"
    term = os.environ.get("TERM", "")
    if term in ("", "dumb"):
        return "the terminal is a dumb one (TERM)"
    if os.environ.get("NO_COLOR"):
        return "NO_COLOR is set"
    try:
        "▀".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return f"the terminal does not take UTF-8, but {sys.stdout.encoding}"
    descriptor = sys.stdout.fileno()
    columns, rows, cell = _window(descriptor)
    if term in _NO_QUESTIONS or os.environ.get("TERM_PROGRAM") == "Apple_Terminal":
        return Canvas(Protocol.HALF_BLOCKS, columns, rows, (1, 2))
    answer = _ask(descriptor, _KITTY_QUESTION + _CELL_QUESTION + _ATTRIBUTES_QUESTION)
    protocol = _protocol(answer)
    if protocol is Protocol.HALF_BLOCKS:
        return Canvas(protocol, columns, rows, (1, 2))
    said = _CELL.search(answer)
    if cell is None and said and int(said[1]) and int(said[2]):
        cell = int(said[2]), int(said[1])
    return Canvas(protocol, columns, rows, cell or _USUAL_CELL)


def _protocol(answer: bytes) -> Protocol:
    attributes = _ATTRIBUTES.search(answer)
    if attributes and b"4" in attributes[1].split(b";"):
        return Protocol.SIXEL
    # Warp says that it can, but not the way in which textual-image places a picture in the text.
    if _KITTY.search(answer) and os.environ.get("TERM_PROGRAM") != "WarpTerminal":
        return Protocol.KITTY
    return Protocol.HALF_BLOCKS


def _window(descriptor: int) -> tuple[int, int, tuple[int, int] | None]:
    """The terminal's columns and rows, and a character's size in pixels where the terminal says it by itself."""
    import fcntl
    import struct
    import termios

    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        answer = bytes(8)
    rows, columns, width, height = struct.unpack("HHHH", answer)
    cell = (width // columns, height // rows) if columns and rows else (0, 0)
    return columns or 80, rows or 24, cell if all(cell) else None


def _ask(descriptor: int, question: str) -> bytes:
    """The terminal's answer; nothing from a terminal that does not answer, or that is not ours to ask."""
    import termios

    try:
        terminal = os.open(os.ttyname(descriptor), os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return b""
    answer = b""
    try:
        if _in_background(terminal):
            return b""
        with _silent(terminal):
            # Where a terminal does print a question, it is wiped out.
            os.write(terminal, f"\x1b7{question}\x1b8\x1b[K".encode())
            end = time.monotonic() + _PATIENCE
            while (left := end - time.monotonic()) > 0 and select.select([terminal], [], [], left)[0]:
                part = os.read(terminal, 4096)
                if not part:
                    break
                answer += part
                if _ATTRIBUTES.search(answer):
                    end = time.monotonic() + _SILENCE
            termios.tcflush(terminal, termios.TCIFLUSH)
    except OSError:
        return b""
    finally:
        os.close(terminal)
    return answer


def _in_background(terminal: int) -> bool:
    """Whether the shell would stop us for changing the terminal's settings."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # not the terminal that controls us: nobody would
        return False


@contextmanager
def _silent(terminal: int) -> Iterator[None]:
    """The terminal neither echoes what comes nor waits for the end of a line; afterwards it is as it was."""
    import termios

    before = termios.tcgetattr(terminal)
    mode = [*before]
    mode[3] &= ~(termios.ECHO | termios.ICANON)
    handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        termios.tcsetattr(terminal, termios.TCSANOW, mode)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
        signal.signal(signal.SIGTERM, handler)


def _strips(picture: Image.Image, canvas: Canvas) -> Iterator[Image.Image]:
    """The picture, not wider than the terminal, in strips of whole characters that are not higher than it."""
    from PIL import Image

    picture = picture.convert("RGB")
    if picture.width > canvas.width:
        height = max(1, round(picture.height * canvas.width / picture.width))
        picture = picture.resize((canvas.width, height), Image.Resampling.LANCZOS)
    width, height = canvas.cell
    columns, rows = -(-picture.width // width), -(-picture.height // height)
    whole = Image.new("RGB", (columns * width, rows * height), picture.getpixel((0, picture.height - 1)))
    whole.paste(picture)
    step = max(1, min(_STRIP, canvas.rows - 2))
    for top in range(0, rows, step):
        yield whole.crop((0, top * height, whole.width, min(rows, top + step) * height))


def _encoded(picture: Image.Image, canvas: Canvas) -> str:
    """What the terminal is sent for a picture of whole characters."""
    from rich.console import Console

    with _no_terminal(canvas.cell) as printed, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # between the library and Pillow
        from textual_image.renderable.halfcell import Image as HalfBlocks
        from textual_image.renderable.sixel import Image as Sixel
        from textual_image.renderable.tgp import Image as Kitty

        kind = {Protocol.SIXEL: Sixel, Protocol.KITTY: Kitty, Protocol.HALF_BLOCKS: HalfBlocks}[canvas.protocol]
        size = picture.width // canvas.cell[0], picture.height // canvas.cell[1]
        console = Console(file=printed, force_terminal=True, width=canvas.columns, height=canvas.rows)
        if canvas.coarse and console.color_system == "256":
            picture = _in_256_colours(picture)
        console.print(kind(picture, *size), end="")
        # Defining a colour takes it up, which some terminals do not know: it is taken up in words.
        return _COLOUR_DEFINED.sub(r"\g<0>#\1", printed.getvalue())


def _in_256_colours(picture: Image.Image) -> Image.Image:
    """The picture in a terminal's colours 16 to 255; rich, left to choose, would make dark ones blue."""
    from PIL import Image

    levels = (0, 95, 135, 175, 215, 255)
    colours = [(red, green, blue) for red in levels for green in levels for blue in levels]
    colours += [(grey, grey, grey) for grey in range(8, 239, 10)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in colours for value in colour])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB")


@contextmanager
def _no_terminal(cell: tuple[int, int]) -> Iterator[io.StringIO]:
    """What is printed to the process's own stdout is collected; a library that asks finds characters of this size."""
    printed = io.StringIO()
    changed = {"TEXTUAL_CELL_WIDTH": str(cell[0]), "TEXTUAL_CELL_HEIGHT": str(cell[1])}
    before = {name: os.environ.get(name) for name in changed}
    stdout = sys.__stdout__
    os.environ.update(changed)
    vars(sys)["__stdout__"] = printed
    try:
        yield printed
    finally:
        vars(sys)["__stdout__"] = stdout
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
