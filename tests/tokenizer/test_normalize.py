"""Normalization: NFC, line ends, removed characters and their counts; idempotent for every text."""

import sys
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt.tokenizer.normalize import _PERHAPS_MARKS, Removed, normalize

ANY_TEXT = st.text(st.characters(), max_size=60)  # surrogates and controls included


def test_what_it_says():
    nfd = unicodedata.normalize("NFD", "한글 café")
    assert normalize(nfd) == ("한글 café", Removed(0, 0))
    assert normalize("a\r\nb\rc\n\td") == ("a\nb\nc\n\td", Removed(0, 0))
    assert normalize("a\x00b\x85c\ud800") == ("abc", Removed(2, 1))
    family = "👨\u200d👩\u200d👧\ufe0f\u3000\xa0\u2028"
    assert normalize(family) == (family, Removed(0, 0))


def test_what_is_dropped_cannot_hide_a_line_end_or_a_composition():
    assert normalize("a\r\x00\nb")[0] == "a\nb"
    assert normalize("\u1100\ud800\u1161")[0] == "가"


def test_dropped_characters_are_exactly_the_category_cc_and_surrogates():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        category = unicodedata.category(character)
        gone = category == "Cs" or (category == "Cc" and character not in "\t\n\r")
        assert (normalize(character)[0] == "") == gone, hex(code)


@given(ANY_TEXT)
def test_idempotent_and_counted(text):
    once, removed = normalize(text)
    assert normalize(once) == (once, Removed(0, 0))
    assert unicodedata.is_normalized("NFC", once)
    assert sum(removed) == sum(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r" for c in text)


def is_mark(character):
    return unicodedata.combining(unicodedata.normalize("NFD", character)[0]) > 0


def test_every_combining_mark_is_in_a_block_that_is_looked_at():
    marks = [chr(code) for code in range(sys.maxunicode + 1) if is_mark(chr(code))]
    assert len(marks) > 900
    assert all(_PERHAPS_MARKS.fullmatch(mark * 64) for mark in marks)


MARKS = "".join(chr(code) for code in range(0x300, 0x20000) if is_mark(chr(code))) + "\u0f73\u0344" * 20


@given(st.lists(st.sampled_from([*MARKS, *"aé가\u1100\u1161\u09c7\u09be각 "]), min_size=64, max_size=200), st.randoms())
@settings(max_examples=200)
def test_long_runs_of_marks_are_in_the_nfc_of_the_standard(characters, random):
    text = "".join(characters)
    assert normalize(text)[0] == unicodedata.normalize("NFC", text)
    run = "".join(random.choices(MARKS, k=300))
    assert normalize(f"가{run}é{run}")[0] == unicodedata.normalize("NFC", f"가{run}é{run}")
