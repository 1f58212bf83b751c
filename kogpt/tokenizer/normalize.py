"""Text normalization, the first step for articles and prompts: bytes -> str -> normalized str + removed counts.

Removes lone surrogates and control characters (category Cc, except tab, line feed, and carriage return), turns
`\\r\\n` and `\\r` into `\\n`, and applies NFC (Unicode Standard Annex 15), in this order. Everything else stays:
zero-width joiners hold emoji together, and no-break or ideographic spaces are the author's choice. Idempotent.
O(n log n) for any text of n characters; one that is already normalized costs three scans.
"""

import re
import unicodedata
from itertools import groupby
from typing import NamedTuple

NORMALIZER = "nfc-1"

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# 64 or more characters from blocks with combining marks: few blocks, because the search has to be fast.
_PERHAPS_MARKS = re.compile("[\u0300-\u309a\ua66f-\uabed\ufb1e-\ufe2f\U000101fd-\U0001ffff]{64,}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Removed(NamedTuple):
    """How many characters were removed, by kind."""

    controls: int
    surrogates: int


def normalize(text: str) -> tuple[str, Removed]:
    """The normalized text, and how many characters were removed."""
    # A Python string consists of code points, so a surrogate in it is always a lone one.
    text, surrogates = _SURROGATE.subn("", text)
    text, controls = _CONTROL.subn("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _PERHAPS_MARKS.sub(_sort_marks, text)
    return unicodedata.normalize("NFC", text), Removed(controls, surrogates)


def _sort_marks(run: re.Match[str]) -> str:
    """Return the run with every stretch of marks decomposed and stably sorted by class (UAX 15, D109).

    The NFC stays the same, and is found fast: Python's own sorts marks by insertion, in quadratic time.
    """
    decomposed = {character: unicodedata.normalize("NFD", character) for character in set(run[0])}
    # By the first of the decomposed: U+0F73 has class 0, but is made of marks.
    stretches = groupby(run[0], key=lambda character: unicodedata.combining(decomposed[character][0]) > 0)
    return "".join(
        "".join(
            sorted("".join([decomposed[mark] for mark in stretch]), key=unicodedata.combining) if marks else stretch
        )
        for marks, stretch in stretches
    )
