"""Text normalization, the first step for articles and prompts: bytes -> str -> normalized str + removed counts.

Removes lone surrogates and control characters (category Cc, except tab, line feed, and carriage return), turns
`\\r\\n` and `\\r` into `\\n`, and applies NFC (Unicode Standard Annex 15), in this order. Everything else stays:
zero-width joiners hold emoji together, and no-break or ideographic spaces are the author's choice. Idempotent.
O(characters); a text that is already normalized costs two scans.
"""

import re
import unicodedata
from typing import NamedTuple

NORMALIZER = "nfc-1"

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Removed(NamedTuple):
    """How many characters were removed, by kind."""

    controls: int
    surrogates: int


def decode(content: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark, or else cp949; UTF-8's UnicodeDecodeError if it is neither."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            return content.decode("cp949")
        except UnicodeDecodeError:
            raise error from None


def normalize(text: str) -> tuple[str, Removed]:
    """The normalized text, and how many characters were removed."""
    # A Python string consists of code points, so a surrogate in it is always a lone one.
    text, surrogates = _SURROGATE.subn("", text)
    text, controls = _CONTROL.subn("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text), Removed(controls, surrogates)
