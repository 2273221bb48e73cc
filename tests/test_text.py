"""Numbers for people."""

from __future__ import annotations

import pytest

from bagindex.figures.maps import number
from bagindex.text import logit_text, share_text


@pytest.mark.parametrize(
    ("value", "plain", "signed", "share"),
    [
        (1.5, "1.50", "+1.50", "150.0 %"),
        (-0.25, "−0.25", "−0.25", "−25.0 %"),
        (-12.0, "−12.00", "−12.00", "−1200 %"),
        (-0.01, "−0.01", "−0.01", "−1.0 %"),
        (0.0001, "0.00", "0.00", "0.0 %"),
        (-0.0001, "0.00", "0.00", "0.0 %"),
        (0.0, "0.00", "0.00", "0.0 %"),
    ],
)
def test_what_is_rounded_to_zero_has_no_sign(value: float, plain: str, signed: str, share: str) -> None:
    assert (logit_text(value), number(value), share_text(value)) == (plain, signed, share)
    assert share_text(None) == ""
