"""What a person asks of a build becomes a transform."""

from __future__ import annotations

import pytest

from bagindex.errors import SettingsError
from bagindex.prepare import scale
from bagindex_schemas.records import Transform

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
