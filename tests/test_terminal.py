"""Pictures in terminals: made-up ones that answer as real ones do, late, or not at all."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bagindex import Index

BAGINDEX = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))  # now it is our controlling terminal, as a shell gives one
from bagindex_cli import main, terminal
terminal._PATIENCE = float(sys.argv.pop(1))
main()
"""
SHOW = ("top-patches", "fish", "-k", "3", "--show")
ATTRIBUTES = {b"\x1b[c": b"\x1b[?62;22c"}
SIXEL = {b"\x1b[c": b"\x1b[?62;4;22c", b"\x1b[16t": b"\x1b[6;20;10t"}
KITTY = {
    b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\": b"\x1b_Gi=31;OK\x1b\\",
    b"\x1b[16t": b"\x1b[6;18;9t",
    b"\x1b[c": b"\x1b[?62c",
}


@dataclass
class Terminal:
    """A terminal that gives its answer to each question, after `delay` seconds, and keeps all that it is sent."""

    answers: dict[bytes, bytes]
    columns: int = 80
    delay: float = 0.0
    sent: bytes = b""
    seconds: float = 0.0
    left: bytes = b""
    restored: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    patience: float = 1.0

    def run(self, *args: str, interrupt: signal.Signals | None = None) -> int:
        """Run `bagindex ARGS` in it; its exit status."""
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self.columns, 0, 0))
        before = termios.tcgetattr(side)
        environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM_PROGRAM")}
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", **self.environment}
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", BAGINDEX, str(self.patience), *args],
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment,
            start_new_session=True,
        )
        questions, answered = b"|".join(map(re.escape, self.answers)) or b"(?!)", 0
        try:
            while process.poll() is None or select.select([main], [], [], 0.05)[0]:
                assert time.monotonic() - started < 60, "it hangs"
                if select.select([main], [], [], 0.05)[0]:
                    self.sent += os.read(main, 65536)
                while asked := re.compile(questions).search(self.sent, answered):
                    time.sleep(self.delay)
                    os.write(main, self.answers[asked[0]])
                    answered = asked.end()
                if interrupt is not None and b"\x1b[c" in self.sent:
                    process.send_signal(interrupt)
                    interrupt = None
            self.seconds = time.monotonic() - started
            self.restored = termios.tcgetattr(side) == before
            # What the shell would find typed.
            termios.tcsetattr(side, termios.TCSANOW, [*before[:3], before[3] & ~termios.ICANON, *before[4:]])
            self.left = os.read(side, 4096) if select.select([side], [], [], 0.2)[0] else b""
        finally:
            process.kill()
            process.wait()
            os.close(main)
            os.close(side)
        return process.returncode


@pytest.fixture
def index_path(planted_index: Index) -> str:
    """The planted pictures' index."""
    return str(planted_index.path)


def half_blocks(text: str) -> NDArray[np.uint8]:
    """The pixels of a picture in half-block characters, uint8 [height, width, RGB]."""
    rows = []
    for line in text.splitlines():
        upper: list[tuple[int, ...]] = []
        lower: list[tuple[int, ...]] = []
        for colours, blocks in re.findall(r"\x1b\[([\d;]+)m(▀+)", line):
            numbers = [int(number) for number in colours.split(";")]
            assert (numbers[:2], numbers[5:7]) == ([38, 2], [48, 2])
            upper += [tuple(numbers[2:5])] * len(blocks)
            lower += [tuple(numbers[7:10])] * len(blocks)
        rows += [upper, lower] if upper else []
    return np.array(rows, np.uint8)


def sixels(text: str) -> Iterator[NDArray[np.uint8]]:
    """The pictures drawn in sixels, uint8 [height, width, RGB]."""
    for raster, data in re.findall(r'\x1bP[\d;]*q"([\d;]+)([^\x1b]*)\x1b\\', text):
        _, _, width, height = map(int, raster.split(";"))
        pixels = np.zeros((height + 6, width, 3), np.uint8)
        palette: dict[int, tuple[int, ...]] = {}
        x = y = colour = 0
        for definition, chosen, times, column, control in re.findall(
            r"#(\d+;2;\d+;\d+;\d+)|#(\d+)|(?:!(\d+))?([?-~])|([$-])", data
        ):
            if definition:
                number, _, *percent = map(int, definition.split(";"))
                palette[number] = tuple(round(value * 2.55) for value in percent)
            elif chosen:
                colour = int(chosen)
            elif control:
                x, y = 0, y + 6 * (control == "-")
            else:
                count, bits = int(times or 1), ord(column) - 63
                for bit in range(6):
                    if bits >> bit & 1:
                        pixels[y + bit, x : x + count] = palette[colour]
                x += count
        yield pixels[:height]


def kitty_pictures(text: str) -> Iterator[NDArray[np.uint8]]:
    """The pictures sent in kitty's protocol, uint8 [height, width, RGB]."""
    data = ""
    for more, payload in re.findall(r"\x1b_Gi=\d+,m=([01]),f=100,q=2;([^\x1b]*)\x1b\\", text):
        data += payload
        if more == "0":
            with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
                yield np.asarray(picture.convert("RGB"))
            data = ""


def padded(picture: Image.Image, like: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, on the paper on which it was drawn."""
    paper = np.full(like.shape, 255, np.uint8)
    paper[: picture.height, : picture.width] = np.asarray(picture)
    return paper


@pytest.mark.parametrize("answers", [ATTRIBUTES, {}])
def test_half_blocks_show_every_pixel(index_path: str, planted_index: Index, answers: dict[bytes, bytes]) -> None:
    terminal = Terminal(answers)
    assert terminal.run(*SHOW, "-i", index_path) == 0
    drawn = half_blocks(terminal.sent.decode())
    picture = planted_index.top_patches("fish", k=3).picture(80, coarse=True)
    np.testing.assert_array_equal(drawn, padded(picture, drawn))
    assert b"most evidence, right class" in terminal.sent
    assert terminal.restored
    assert terminal.left == b""
    assert b"Traceback" not in terminal.sent


def test_sixels(index_path: str, planted_index: Index) -> None:
    terminal = Terminal(SIXEL)
    assert terminal.run(*SHOW, "-i", index_path) == 0
    # One strip under the other, each of whole characters and none higher than the terminal.
    strips = list(sixels(terminal.sent.decode()))
    assert all(strip.shape[0] <= 23 * 20 and strip.shape[0] % 20 == strip.shape[1] % 10 == 0 for strip in strips)
    drawn = np.concatenate(strips)
    picture = planted_index.top_patches("fish", k=3).picture(800)
    difference = np.abs(drawn.astype(int) - padded(picture, drawn))
    assert difference.mean() < 6  # 256 colours
    assert terminal.restored
    assert terminal.left == b""


def test_kitty(index_path: str, planted_index: Index) -> None:
    terminal = Terminal(KITTY, columns=50)
    assert terminal.run(*SHOW, "-i", index_path) == 0
    drawn = np.concatenate(list(kitty_pictures(terminal.sent.decode())))
    picture = planted_index.top_patches("fish", k=3).picture(50 * 9)
    np.testing.assert_array_equal(drawn, padded(picture, drawn))
    # A placeholder for each character that the picture covers.
    assert terminal.sent.decode().count("\U0010eeee") == drawn.shape[0] * drawn.shape[1] // (18 * 9)
    assert terminal.restored
    assert terminal.left == b""


def test_few_colours(index_path: str, planted_index: Index) -> None:
    terminal = Terminal(ATTRIBUTES, environment={"COLORTERM": ""})
    assert terminal.run(*SHOW, "-i", index_path) == 0
    numbers = re.findall(r"\x1b\[38;5;(\d+);48;5;(\d+)m", terminal.sent.decode())
    assert len(numbers) > 100
    assert {int(number) for pair in numbers for number in pair} <= set(range(16, 256))


def test_warp_says_more_than_it_can(index_path: str) -> None:
    terminal = Terminal(KITTY, environment={"TERM_PROGRAM": "WarpTerminal"})
    assert terminal.run(*SHOW, "-i", index_path) == 0
    assert "▀" in terminal.sent.decode()


def test_slow_answers_are_waited_for(index_path: str) -> None:
    terminal = Terminal({b"\x1b[c": SIXEL[b"\x1b[c"]}, delay=0.6)
    assert terminal.run(*SHOW, "-i", index_path) == 0
    assert list(sixels(terminal.sent.decode()))
    assert terminal.left == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_asks(index_path: str, number: signal.Signals) -> None:
    terminal = Terminal({}, patience=30)  # on a busy machine, the signal may come late
    assert terminal.run(*SHOW, "-i", index_path, interrupt=number) != 0
    assert terminal.restored
    assert b"Traceback" not in terminal.sent


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"NO_COLOR": "1"}, "NO_COLOR is set"),
        ({"TERM": "dumb"}, "a dumb one"),
        ({"PYTHONIOENCODING": "latin-1"}, "does not take UTF-8"),
    ],
)
def test_terminals_that_are_not_drawn_on(index_path: str, environment: dict[str, str], said: str) -> None:
    terminal = Terminal(SIXEL, environment=environment)
    assert terminal.run(*SHOW, "-i", index_path, "--format", "csv") == 0
    assert said in terminal.sent.decode()
    assert b"\x1b" not in terminal.sent
    assert b"rank,model" in terminal.sent


def test_linux_console_is_not_asked(index_path: str) -> None:
    terminal = Terminal({}, environment={"TERM": "linux", "COLORTERM": ""})
    assert terminal.run(*SHOW, "-i", index_path) == 0
    assert b"\x1b[c" not in terminal.sent
    assert "▀" in terminal.sent.decode()


def test_nothing_is_drawn_into_a_pipe(run, index_path: str) -> None:  # type: ignore[no-untyped-def]
    plain = run(*SHOW[:-1], "-i", index_path)
    shown = run(*SHOW, "-i", index_path)
    assert shown.out == plain.out
    assert shown.err == "bagindex: no pictures with --show: the output is no terminal\n"


def test_nothing_is_drawn_of_nothing(run, index_path: str) -> None:  # type: ignore[no-untyped-def]
    assert run(*SHOW, "-i", index_path, "--where", "false").err.count("\n") == 1


def test_a_narrow_terminal_has_fewer_patches_in_a_row(planted_index: Index) -> None:
    result = planted_index.top_patches("fish", k=7)
    full = result.picture()
    for width in (40, 120, 400, 1000, 5000):
        narrow = result.picture(width)
        assert narrow.width <= max(width, 64)
        assert result.picture(width, coarse=True).width <= width
    assert result.picture(600).height > full.height
    crop = np.asarray(Image.fromarray(result.crops()[0]))
    np.testing.assert_array_equal(np.asarray(result.picture(80, coarse=True))[:33, :33], crop)


def test_a_wide_picture_is_made_to_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from bagindex_cli import terminal

    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    canvas = terminal.Canvas(terminal.Protocol.HALF_BLOCKS, 80, 24, (1, 2))
    monkeypatch.setattr(terminal, "canvas", lambda: canvas)
    gradient = Image.linear_gradient("L").resize((801, 301))
    terminal.show(gradient)
    drawn = half_blocks(capsys.readouterr().out)
    assert drawn.shape == (30, 80, 3)
    assert np.abs(drawn[:, 7].astype(int) - np.asarray(gradient.convert("RGB").resize((80, 30)))[:, 7]).max() < 12
    terminal.show(Image.new("P", (1, 1)))
    assert half_blocks(capsys.readouterr().out).shape == (2, 1, 3)


def test_a_picture_is_closed_when_drawing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bagindex_cli import terminal

    canvas = terminal.Canvas(terminal.Protocol.SIXEL, 80, 24, (10, 20))
    monkeypatch.setattr(terminal, "canvas", lambda: canvas)
    monkeypatch.setattr(terminal, "_encoded", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        terminal.show(Image.new("RGB", (3, 3)))
    assert capsys.readouterr().out == "\x1b\\\x1b[0m\n"
