"""What a corpus says about itself, and its data card."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from kogpt.data import facts
from kogpt.data.card import card
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.wordpiece import open_tokenizer


def test_sources_add_up_and_are_those_at_the_top(corpus: Path) -> None:
    opened = TokenCorpus.open(corpus)
    counts = opened.manifest["counts"]
    found = facts.sources(opened)
    names, *numbers = zip(*found, strict=True)
    assert list(map(sum, numbers)) == [counts["written"], counts["chars"], counts["ids"]]
    assert not any("/" in name for name in names)


def test_a_card_says_what_is_in_the_corpus_and_leaves_the_license_to_its_owner(corpus: Path) -> None:
    opened = TokenCorpus.open(corpus)
    text = card(opened)
    assert f"{len(opened):,} articles, {opened.manifest['counts']['chars']:,} characters" in text
    assert opened.fingerprint in text
    assert "Hangul 9" in text
    assert text.count("FILL IN") >= 3
    lines = text.split("\n")
    for header, rule in pairwise(lines):
        if rule.startswith("| ---"):
            assert header.count("|") == rule.count("|")


def test_inspect_prints_the_card_alone(kogpt: Callable, corpus: Path) -> None:
    result = kogpt("inspect", corpus, "--card")
    assert result.returncode == 0
    assert result.stdout == card(TokenCorpus.open(corpus))


def test_shares_of_scripts(corpus: Path) -> None:
    opened = TokenCorpus.open(corpus)
    shares = facts.scripts(opened, open_tokenizer(opened.tokenizer_folder))
    assert abs(sum(shares.values()) - 1) < 1e-9
    assert next(iter(shares)) == "Hangul"


def test_quantiles() -> None:
    assert facts.quantiles(np.arange(11)) == {
        "smallest": 0,
        "10 %": 1,
        "median": 5,
        "90 %": 9,
        "largest": 10,
        "mean": 5,
    }
    assert facts.quantiles(np.array([])) == {}
