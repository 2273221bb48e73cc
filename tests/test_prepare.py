"""What a person asks of a build becomes a transform."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagindex import Index, prepare
from bagindex.build import BuildSettings, build
from bagindex.errors import LockedError, SettingsError
from bagindex.prepare import scale
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Transform
from fakes import LinearCompute, MemorySource

IMAGENET = Transform(resize=256, crop_height=224, crop_width=224)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, (256, 224, 224)),
        ((224, 224), (256, 224, 224)),
        ((112, 112), (128, 112, 112)),
        ((160, 224), (256, 160, 224)),
    ],
)
def test_input_size_keeps_the_proportion(size: tuple[int, int] | None, expected: tuple[int, int, int]) -> None:
    found = scale(IMAGENET, size)
    assert (found.resize, found.crop_height, found.crop_width) == expected


def test_crop_larger_than_the_picture() -> None:
    with pytest.raises(SettingsError, match="mend its `resize` or `crop` metadata"):
        scale(Transform(resize=200, crop_height=224, crop_width=100), None)
    with pytest.raises(SettingsError, match="HEIGHTxWIDTH"):
        scale(IMAGENET, (0, 5))


def test_who_is_writing_is_told_before_models_are_loaded(
    planted_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_models(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(prepare, "open_models", open_models)
    build(
        IndexDirectory(tmp_path / "i"), MemorySource(["a", "b"]), {"a": 0, "b": 1}, LinearCompute("ab"), BuildSettings()
    )
    with IndexDirectory(tmp_path / "i").writing(), pytest.raises(LockedError, match="is writing"):
        Index.build(planted_folder, out=tmp_path / "i")
    with pytest.raises(AssertionError):
        Index.build(planted_folder, out=tmp_path / "i")
