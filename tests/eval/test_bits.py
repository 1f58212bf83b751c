"""Bits per character by hand."""

import math

import pytest

from kogpt.eval import bits


def test_ten_characters_of_three_bits() -> None:
    assert bits.per_char(math.log(2) * 30, 10) == pytest.approx(3.0)
