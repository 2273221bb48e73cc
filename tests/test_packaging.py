"""The wheel has what the tree has, and imports go one way."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from bagindex_cli.app import app

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"bagindex": "bagindex", "cli": "bagindex_cli", "schemas": "bagindex_schemas"}
ALLOWED = {
    "bagindex_schemas": {"bagindex_schemas"},
    "bagindex": {"bagindex", "bagindex_schemas"},
    "bagindex_cli": {"bagindex", "bagindex_cli", "bagindex_schemas"},
}


def test_every_package_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {
        ".".join((package, *path.relative_to(ROOT / folder).parent.parts))
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(project["tool"]["setuptools"]["packages"])
    data = project["tool"]["setuptools"]["package-data"]
    for folder, package in FOLDERS.items():
        others = {path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
        shipped = {path for pattern in data[package] for path in (ROOT / folder).glob(pattern) if path.is_file()}
        assert others == shipped


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_one_way(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = {name.split(".")[0] for name in names if name.startswith("bagindex")}
            assert ours <= ALLOWED[FOLDERS[folder]], path
            if folder == "cli":
                # The command line asks Index; beside it, it needs only words, errors and formatting.
                inner = {name for name in names if name.startswith("bagindex.")}
                assert inner <= {
                    *("bagindex.errors", "bagindex.text", "bagindex.output", "bagindex.observer"),
                    *("bagindex.build", "bagindex.compact", "bagindex.costs", "bagindex.info", "bagindex.plan"),
                    *("bagindex.planning", "bagindex.experiments.experiment", "bagindex.experiments.layers"),
                    *("bagindex.service", "bagindex.service.asking"),
                }, path


def test_every_command_is_in_the_readme_and_has_help() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        assert f"bagindex {name}" in readme
        assert command.help
        for parameter in command.params:
            assert getattr(parameter, "help", None) or name == "--help", (name, parameter.name)
