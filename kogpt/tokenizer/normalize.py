"""The text that everything else sees: a file's bytes -> str -> normalised str + what was taken out.

Order: lone surrogates and control characters (category Cc; tab, line feed and carriage return stay) go,
`\\r\\n` and `\\r` become `\\n`, then NFC (Unicode Standard Annex 15). Nothing else changes: zero-width joiners
hold emoji together, and no-break or ideographic spaces are the author's. Idempotent. O(characters); a text
that is already normalised costs two scans.
"""

import re
import unicodedata
from typing import NamedTuple

NORMALIZER = "nfc-1"

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Removed(NamedTuple):
    """How many characters the normaliser dropped, by kind."""

    controls: int
    surrogates: int


def decode(content: bytes) -> str:
    """UTF-8, with or without a byte order mark, or else cp949; the UnicodeDecodeError of UTF-8 where it is neither."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            return content.decode("cp949")
        except UnicodeDecodeError:
            raise error from None


def normalize(text: str) -> tuple[str, Removed]:
    """Return the normalised text and the number of characters that were dropped."""
    # A Python string holds whole characters, so a surrogate in it is a lone one by definition.
    text, surrogates = _SURROGATE.subn("", text)
    text, controls = _CONTROL.subn("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text), Removed(controls, surrogates)
