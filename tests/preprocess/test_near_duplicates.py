"""Near-duplicates: similarities against sets of strings, groups against a search, and a planted set."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import near_duplicates, screen
from preprocess.layouts import named_layout
from preprocess.near_duplicates import (
    FOUND,
    Shape,
    bands,
    exact_similarity,
    groups,
    repeats,
    shape_for,
    shingles,
    signature,
)
from preprocess.reading import Readers, Reading
from preprocess.scan import Scan
from preprocess.sources import find_sources
from preprocess.unit_stage import read_by
from preprocess.units import Store

THRESHOLD = 0.8


def by_strings(a: str, b: str) -> float:
    """The same similarity, of the shingles themselves."""
    sets = [{text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in (a, b)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@given(st.text("가나다 .", max_size=40), st.text("가나다 .", max_size=40))
def test_similarity_is_that_of_the_shingles(a: str, b: str) -> None:
    assert exact_similarity(a, b) == pytest.approx(by_strings(a, b))
    assert len(shingles(a)) == max(1, len(a) - 4)


def test_a_pair_at_the_threshold_becomes_a_candidate() -> None:
    assert shape_for(0.8) == Shape(18, 7)
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        count, rows = shape_for(threshold)
        assert 1 - (1 - threshold**rows) ** count >= FOUND
        assert count * rows <= 128


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), max_size=12))
def test_groups_are_the_connected_texts(rows: list[list[int]]) -> None:
    columns = np.array(rows, dtype=np.uint64).reshape(-1, 3).T
    found = [group.tolist() for group in groups(columns, len(rows))]
    expected: list[set[int]] = []
    for number, row in enumerate(rows):
        joined = {number}
        for other in [group for group in expected if any(_alike(row, rows[member]) for member in group)]:
            joined |= other
            expected.remove(other)
        expected.append(joined)
    assert found == sorted(sorted(group) for group in expected if len(group) > 1)


def _alike(a: list[int], b: list[int]) -> bool:
    return any(x == y != 0 for x, y in zip(a, b, strict=True))


def test_pieces_of_a_long_text_give_the_signature_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = article(random.Random(1))
    whole = signature(text, 126)
    for piece in (1, 7, len(text) - 4, len(text) - 5):
        monkeypatch.setattr(near_duplicates, "PIECE", piece)
        assert signature(text, 126).tolist() == whole.tolist()


# ---- a planted set


def article(rng: random.Random) -> str:
    syllables = [chr(code) for code in range(0xAC00, 0xAC00 + 11172, 31)]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(120)]
    sentences = [" ".join(rng.choices(words, k=rng.randint(4, 12))) + "." for _ in range(rng.randint(12, 60))]
    sentences = [s + f" {rng.randint(1000, 99999):,}명이다." if rng.random() < 0.3 else s for s in sentences]
    return "\n\n".join(" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5))


def edited(text: str, rng: random.Random) -> str:
    characters = list(text)
    for _ in range(rng.randint(1, max(2, len(text) // 40))):
        characters[rng.randrange(len(characters))] = rng.choice("가나다라 .")
    return "".join(characters)


def moved(text: str, rng: random.Random) -> str:
    paragraphs = text.split("\n\n")
    rng.shuffle(paragraphs)
    return "\n\n".join(paragraphs)


def wrapped(text: str, rng: random.Random) -> str:
    boilerplate = "홈 로그인 회원가입 고객센터 | 기사 입력 | 무단 전재 및 재배포 금지 저작권자 " * rng.randint(1, 4)
    return f"{boilerplate}\n{text}\n{boilerplate}"


def renumbered(text: str, rng: random.Random) -> str:
    return text.replace(",", "").replace("1", "일").replace("0", "영") if rng.random() < 0.7 else text.replace(",", "")


CHANGES: list[Callable[[str, random.Random], str]] = [edited, moved, wrapped, renumbered]


def test_a_planted_set() -> None:
    rng = random.Random(0)
    texts, pairs = [], []
    for number in range(400):
        text = article(rng)
        texts.append(text)
        if number % 2:
            pairs.append((len(texts) - 1, len(texts)))
            texts.append(rng.choice(CHANGES)(text, rng))
    shape = shape_for(THRESHOLD)
    columns = np.array([bands(text, shape) for text in texts]).T
    gone = {}
    for group in groups(columns, len(texts)):
        for repeat in repeats([texts[i] for i in group], THRESHOLD):
            gone[int(group[repeat.number])] = (int(group[repeat.of]), repeat.similarity)
    alike = [(a, b) for a, b in pairs if by_strings(texts[a], texts[b]) >= THRESHOLD]
    assert 100 < len(alike) < len(pairs), "the set has pairs on both sides of the threshold"
    recall = sum(gone.get(b, (None,))[0] == a for a, b in alike) / len(alike)
    precision = sum(by_strings(texts[b], texts[a]) >= THRESHOLD for b, (a, _) in gone.items()) / len(gone)
    assert recall >= 0.95
    assert precision >= 0.99
    for b, (a, similarity) in gone.items():
        assert a < b
        assert a not in gone, "what a text repeats stays"
        assert similarity == pytest.approx(by_strings(texts[a], texts[b]))


@pytest.mark.parametrize("at_once", [1, 256])
def test_the_texts_of_groups_are_read_in_the_order_of_the_input(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "_AT_ONCE", at_once)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "글 {i}"}}\n' for i in range(6)))
    sources = find_sources((str(tmp_path / "a.jsonl"),))
    readers = Readers(Reading(named_layout("plain"), ()), sources, Store(tmp_path / "o"), actors=False)
    found = Scan(readers.outlines(), readers._store, {}).finish()
    sha256 = found.rows(found.units)["text_sha256"].to_pylist()
    for _ in range(2):  # the readers begin again
        texts, members = next(
            screen._read_groups([np.array([0, 5]), np.array([1, 4])], read_by(readers, found), tmp_path)
        )
        assert texts == [["글 0", "글 5"], ["글 1", "글 4"]]
        assert members == [[(f"a.jsonl#{i}", sha256[i]) for i in own] for own in ((0, 5), (1, 4))]


def test_the_most_similar_of_the_texts_that_stay_is_named() -> None:
    line = "".join(chr(0xAC00 + 7 * i) for i in range(1100))
    first, second, third = line[:900], line[150:1050], line[80:1010]
    assert exact_similarity(first, second) < THRESHOLD < exact_similarity(first, third)
    assert repeats([first, second, third], THRESHOLD) == [(2, 1, exact_similarity(second, third))]
    assert [(one.number, one.of) for one in repeats([first, first[:-5], first + "꼬리"], THRESHOLD)] == [(1, 0), (2, 0)]
