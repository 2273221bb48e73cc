"""The sdist and the wheel have what the tree has, and imports go one way."""

from __future__ import annotations

import ast
import email
import email.message
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from typer.main import get_command

from bagindex import __version__
from bagindex_cli.app import app

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"bagindex": "bagindex", "cli": "bagindex_cli", "schemas": "bagindex_schemas"}
ALLOWED = {
    "bagindex_schemas": {"bagindex_schemas"},
    "bagindex": {"bagindex", "bagindex_schemas"},
    "bagindex_cli": {"bagindex", "bagindex_cli", "bagindex_schemas"},
}


_HOOK = "import sys, setuptools.build_meta as build; print(getattr(build, 'build_' + sys.argv[1])(sys.argv[2]))"
"""What `python -m build` calls, with the setuptools that is here."""


def built(what: str, tree: Path, out: Path) -> Path:
    """An sdist or wheel of a tree, made in `out`."""
    out.mkdir()
    command = [sys.executable, "-c", _HOOK, what, str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the wheel that is made of the sdist that is made of the tree."""
    folder = tmp_path_factory.mktemp("dist")
    tree = folder / "tree"
    tree.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    with tarfile.open(built("sdist", tree, folder / "sdist")) as packed:
        packed.extractall(folder, filter="data")
    with zipfile.ZipFile(built("wheel", folder / f"bagindex-{__version__}", folder / "wheel")) as packed:
        packed.extractall(folder / "installed")
    return folder / "installed"


def metadata(wheel: Path) -> email.message.Message:
    return email.message_from_string((wheel / f"bagindex-{__version__}.dist-info" / "METADATA").read_text())


def test_a_wheel_of_the_sdist_has_all_files_of_the_tree(wheel: Path) -> None:
    for folder, package in FOLDERS.items():
        here, there = (
            {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
            for root in (ROOT / folder, wheel / package)
        )
        assert {name: data for name, data in here.items() if name.suffix != ".pyc"} == there
    assert (wheel / f"bagindex-{__version__}.dist-info" / "licenses" / "LICENSE").read_bytes() == (
        ROOT / "LICENSE"
    ).read_bytes()


def test_a_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "bagindex_cli", "--version"]
    environment = os.environ | {"PYTHONPATH": str(wheel)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"bagindex {__version__}\n", "")
    script = "import bagindex_schemas as s, bagindex.demo as d; print(d.weights().stat().st_size, s.__file__)"
    done = subprocess.run([command[0], "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [
        str((ROOT / "bagindex" / "demo" / "bagnet33.safetensors").stat().st_size),
        str(wheel / "bagindex_schemas" / "__init__.py"),
    ]


def test_what_the_wheel_says_of_itself(wheel: Path) -> None:
    said = metadata(wheel)
    assert said["Version"] == __version__
    assert said["License-Expression"] == "MIT AND Apache-2.0 AND BSD-3-Clause"
    assert said["Author"] == "the bagindex developers"
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert (wheel / "bagindex" / "py.typed").is_file()
    entry_points = (wheel / f"bagindex-{__version__}.dist-info" / "entry_points.txt").read_text()
    assert entry_points.split("\n")[:2] == ["[console_scripts]", "bagindex = bagindex_cli:main"]


def test_the_changes_begin_with_this_version() -> None:
    readme = (ROOT / "README.md").read_text()
    changes = readme[readme.index("\n## Changes\n") : readme.index("\n## Licence\n")]
    versions = re.findall(r"^\*\*(\d+\.\d+\.\d+)\*\*", changes, re.M)
    assert versions[0] == __version__
    assert versions == sorted(versions, key=lambda each: [int(part) for part in each.split(".")], reverse=True)


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
                    *("bagindex.agents", "bagindex.errors", "bagindex.text", "bagindex.output", "bagindex.observer"),
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
