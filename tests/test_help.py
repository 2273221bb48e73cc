"""Every command's help says in a sentence what it does and shows how, by examples that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from bagindex_cli.app import app

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
WIDTH = 120


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, each in getattr(command, "commands", {}).items():
        if hasattr(each, "commands"):
            yield from commands(each, *path, name)
        else:
            yield (*path, name), each


COMMANDS = dict(commands(get_command(app)))


def lines(text: str) -> list[str]:
    """Its indented lines that are commands of bagindex."""
    joined = text.replace("\\\n", " ")
    found = [line[4:] for line in joined.splitlines() if re.match(r" {4}(\w+=\S* )?bagindex ", line)]
    return [part.strip() for line in found for part in line.split("&&")]


def parse(line: str) -> None:
    """Parse a command as the command line would; nothing is run."""
    words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
    assert words[0] == "bagindex"
    command: Any = get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    with command.make_context(words[1], rest):
        pass


EXAMPLES = {line: path for path, command in COMMANDS.items() for line in lines(command.help)}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_sentence_a_paragraph_and_an_example(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    sentence, *paragraphs = command.help.split("\n\n")
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    examples = lines(command.help)
    assert examples
    assert any(line.startswith(f"bagindex {' '.join(path)}") for line in examples)
    # What is not indented would be set as running text.
    assert not any(line.startswith("bagindex ") for line in command.help.splitlines())
    assert any(not paragraph.startswith("    ") for paragraph in paragraphs) or path == ("demo",)
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_of_the_help_is_taken(line: str) -> None:
    parse(line)


# What has brackets, bars or dots shows how a command is put together, and is no command.
SHOWN = [line for line in lines(README) if not re.search(r"[\[|…]|\.\.\.|\bN\b|WORD|^bagindex index ", line)]


def test_readme_shows_commands() -> None:
    assert len(SHOWN) > 20


@pytest.mark.parametrize("line", SHOWN)
def test_every_command_that_readme_shows_is_taken(line: str) -> None:
    parse(line)


def test_an_option_that_there_is_not_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse("bagindex top-patches fish --wrong-clas")
    with pytest.raises(Exception, match="Missing parameter: class_"):
        parse("bagindex top-patches")


def test_help_is_no_wider_than_it_is_set() -> None:
    for command in COMMANDS.values():
        assert max(map(len, command.help.splitlines())) <= WIDTH
