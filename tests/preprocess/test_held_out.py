"""Decontamination: which strings of which files count, and which articles share 13 morphemes with them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import scan_of

from kogpt.common.errors import UserError
from kogpt.tokenizer.analyzers.load import load_analyzer
from preprocess.held_out import GRAM, HeldOut, _grams, drop_held_out, held_out_documents, held_out_grams, scanned
from preprocess.options import Options
from preprocess.stages import MESSAGE_SEPARATOR, find_morphemes
from preprocess.units import MORPHEME_SEPARATOR, Store, group, key_of, pack_cut_texts
from preprocess.work import Work

ANALYZER = {"name": "none"}
LONG = " ".join(f"낱말{i}" for i in range(20))


def held_out(*files: list[str]) -> HeldOut:
    grams = {
        gram: number for number, texts in enumerate(files) for text in texts for gram in _grams(text.split()).tolist()
    }
    hashes = np.array(sorted(grams), dtype=np.uint64)
    return HeldOut(hashes, np.array([grams[int(h)] for h in hashes]), tuple(f"{i}.jsonl" for i in range(len(files))))


def morphemes(text: str) -> str:
    return MORPHEME_SEPARATOR.join(text.split())


@given(st.lists(st.sampled_from("가나다"), max_size=40), st.lists(st.sampled_from("가나다"), min_size=13, max_size=40))
def test_an_article_goes_if_it_shares_thirteen_in_a_row(article: list[str], other: list[str]) -> None:
    grams = {tuple(other[i : i + GRAM]) for i in range(len(other) - GRAM + 1)}
    expected = any(tuple(article[i : i + GRAM]) in grams for i in range(len(article) - GRAM + 1))
    assert (held_out([" ".join(other)]).judge(MORPHEME_SEPARATOR.join(article)) is not None) == expected


def test_the_file_and_the_words_are_named() -> None:
    one = held_out(["하나 " * 13], [LONG])
    assert one.judge(morphemes(f"앞 {LONG} 뒤")) == ("1.jsonl", " ".join(LONG.split()[:13]))
    assert one.judge(morphemes(LONG.replace("낱말9", "다른말"))) is None
    assert one.judge("") is None


def test_no_thirteen_go_across_two_messages() -> None:
    one, words = held_out([LONG]), LONG.split()[:13]
    assert one.judge(MESSAGE_SEPARATOR.join([morphemes("안녕"), morphemes(" ".join(words))])) is not None
    assert one.judge(MESSAGE_SEPARATOR.join([morphemes(" ".join(words[:6])), morphemes(" ".join(words[6:]))])) is None


def test_every_string_of_every_format_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"context": "가", "choices": ["나", "다"], "label": 1}) + "\n")
    (tmp_path / "b.csv").write_text("question,A,answer\n라,마,1\n가,바,2\n")
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(json.dumps([{"turns": [{"text": "사"}]}]).encode()))
    (tmp_path / "d.txt").write_text("아\n\n자")
    found = [(document.source, document.text) for document in held_out_documents([str(tmp_path)])]
    texts = {text for _, text in found}
    assert {"가", "나", "다", "라", "마", "바", "사", "아\n\n자"} <= texts
    assert len(found) == len(texts)
    assert ("a.jsonl", "가") in found


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "{", "x.jsonl cannot be read"),
        ("x.hwp", "x", "x.hwp cannot be read: .hwp"),
        ("x.txt", "", "no text of 13"),
    ],
)
def test_a_file_that_protects_nothing_is_an_error(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"--held-out .*{message}"):
        held_out_grams(
            scanned([str(tmp_path / name)], Store(tmp_path / "o"), ANALYZER).found, Store(tmp_path / "cache")
        )
    with pytest.raises(UserError, match=r"--held-out /no/such: no file found"):
        list(held_out_documents(["/no/such"]))


def test_grams_of_analyzed_texts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"context": LONG, "question": "짧다"}) + "\n")
    analyzer, cache = load_analyzer("none"), Store(tmp_path / "cache")

    def documents() -> list:
        return list(held_out_documents([str(tmp_path / "a.jsonl")]))

    for unit in group(documents(), {"name": "none"}):
        cache.put(unit.key, pack_cut_texts([find_morphemes(document.text, analyzer) for document in unit.documents]))
    found = held_out_grams(scan_of(documents(), tmp_path / "o"), cache)
    assert len(found.hashes) == 20 - GRAM + 1
    assert found.names == ("a.jsonl",)
    assert found.judge(morphemes(LONG)) is not None


def test_what_is_held_out_leaves_the_counts_and_something_must_stay(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(f"{text}\a") + "\n" for text in (LONG, "짧다")))
    one, cache = held_out([LONG]), Store(tmp_path / "cache")
    given = scanned([str(tmp_path / "a.jsonl")], Store(tmp_path / "o"), ANALYZER)
    found = given.found
    assert (found.documents, found.reasons, len(found.units)) == (2, {}, 1)
    assert list(given.texts([found.units])) == [(found.units, ([LONG, "짧다"],))]
    key = key_of([found.units[0].key, one.digest])
    cache.put(key, json.dumps([one.judge(morphemes(LONG)), None]).encode())
    drop_held_out(one, found, cache, Work(Options(input=("x",), output="y")))
    assert (found.documents, found.articles_in, found.reasons) == (1, 2, {"held out": 1})
    found = scanned([str(tmp_path / "a.jsonl")], Store(tmp_path / "o"), ANALYZER).found
    cache.put(key, json.dumps([one.judge(morphemes(LONG))] * 2).encode())
    with pytest.raises(
        UserError, match="every article shares 13 morphemes in a row with --held-out; give it no file of --input"
    ):
        drop_held_out(one, found, cache, Work(Options(input=("x",), output="y")))
