"""Text in pictures, whatever script it is in, with the fonts that a machine has or has not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bagindex import fonts


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Each test finds its fonts by itself."""
    found = list(fonts._found)
    yield
    fonts._found[:] = found
    fonts._in_vain.clear()
    fonts._face.cache_clear()
    fonts._from_folders.cache_clear()


def drawn(text: str, size: int = 20) -> NDArray[np.bool_]:
    """Where ink is, bool [height, width]."""
    picture = Image.new("RGB", (400, 40), (255, 255, 255))
    fonts.draw_text(ImageDraw.Draw(picture), (5, 5), text, (0, 0, 0), size)
    ink: NDArray[np.bool_] = np.asarray(picture).min(axis=2) < 128
    return ink


def test_matplotlibs_font_is_found_without_matplotlib() -> None:
    path, index = fonts._first()
    assert Path(path).name == "DejaVuSans.ttf"
    assert index == 0
    code = "import sys, bagindex.fonts; assert not {'matplotlib', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("text", ["fish 1.25", "Größe · –", "Ελληνικά", "עברית", "عربي"])
def test_common_scripts_need_nothing_from_the_system(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("fontconfig was asked"))
    assert len(list(fonts._parts(text))) == 1
    ink = drawn(text)
    assert ink.any()
    assert not ink[:, int(5 + fonts.text_width(text, 20)) + 2 :].any()


def test_another_font_shows_what_the_first_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """STIX stands for a font with characters that DejaVu Sans has not."""
    other = str(Path(fonts._first()[0]).with_name("STIXGeneral.ttf"))
    missing = next(c for c in map(chr, range(0x2100, 0x2FFF)) if not _in_first(c) and fonts._has((other, 0), c))
    asked: list[list[str]] = []

    def fc_match(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, f"{1 << 16} {other}".encode(), b"")

    monkeypatch.setattr(subprocess, "run", fc_match)
    parts = list(fonts._parts(f"a {missing}{missing} b"))
    assert parts == [(fonts._first(), "a "), ((other, 0), f"{missing}{missing} "), (fonts._first(), "b")]
    assert len(asked) == 1
    assert asked[0][-1].endswith(f"charset={ord(missing):x}")
    assert not np.array_equal(drawn(missing), drawn("\U0010fffe"))


def _in_first(character: str) -> bool:
    return fonts._has(fonts._first(), character)


@pytest.mark.parametrize("answer", [FileNotFoundError(), b"", b"0 /nowhere.ttf", b"x y"])
def test_what_no_font_has_is_a_box(monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception) -> None:
    asked = []

    def fc_match(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess(command, 0, answer, b"")

    monkeypatch.setattr(subprocess, "run", fc_match)
    monkeypatch.setattr(fonts, "_FILES", ("no-such-font.ttf",))
    assert list(fonts._parts("日本語")) == [(fonts._first(), "日本語")]
    assert drawn("日本語").any()
    assert len(asked) <= 3  # once for a block of characters


@pytest.mark.parametrize("text", ["a\nb", "\x1c\x85\u2029", "a\x00\x1b[31m", "\ud800", "\u202e", "😀", ""])
def test_no_text_is_refused(text: str) -> None:
    drawn(text)
    fonts.fit(text, 13, 5)


def test_cut_to_fit() -> None:
    for text in ("x" * 300, "日本語" * 50, "word " * 40, "عربي " * 40, "a\u0301" * 200):
        short = fonts.fit(text, 13, 150)
        assert short.endswith("…")
        assert 100 < fonts.text_width(short, 13) <= 150
    assert fonts.fit(" two\n lines ", 13, 150) == "two lines"
    assert fonts.fit("wide", 13, 1) == "…"
    assert fonts.fit("", 13, 0) == ""


def test_without_matplotlibs_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_first", lambda: ("", 0))
    assert drawn("fish").any()
    assert fonts.text_width("fish", 13) > 10


@pytest.mark.skipif(not os.path.exists("/usr/bin/fc-match"), reason="no fontconfig here")
def test_fontconfig_answers() -> None:
    faces = list(fonts._from_fontconfig("a"))
    assert all(Path(path).is_file() for path, _ in faces)
    assert len(faces) == 1
