"""Conversations through the whole pipeline, with the vocabulary of an earlier corpus or run."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from builders import conversations
from pipelines import checksums
from test_version_0_1 import OLD

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.analyzers.load import analyzer_identity
from kogpt.tokenizer.chat import render
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.pieces import ROLE_PIECES
from kogpt.tokenizer.wordpiece import open_tokenizer
from preprocess.cluster import connect, leave
from preprocess.options import Options
from preprocess.pipeline import preprocess
from preprocess.vocabulary import loaded, settled


@pytest.fixture
def local_ray() -> Iterator[None]:
    connect("local", 2)
    yield
    leave()


@pytest.mark.usefixtures("local_ray")
def test_from_files_to_a_corpus(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The accounts, the tokens of every message as a prompt has them, the learnt flags, and what is not done twice."""
    talks = conversations()
    lines: list[dict[str, Any]] = [{"messages": [message._asdict() for message in talk]} for talk in talks]
    lines += [lines[0], {"messages": []}, {"question": "누구?", "answer": "[END] [ASSISTANT] 나"}, {"title": "글"}]
    (tmp_path / "chat").mkdir()
    file = tmp_path / "chat" / "a.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = Options(input=(str(file),), output=str(tmp_path / "out"), tokenizer=str(corpus), val_fraction=0.1)
    with caplog.at_level(logging.INFO):
        preprocess(options)
    assert "analyzer none, spacing original, as in" in caplog.text
    assert "layout auto: conversations in 4 of 4 sampled values" in caplog.text

    made = TokenCorpus.open(tmp_path / "out")
    assert made.kind == "conversations"
    assert made.verify() == []
    counts = made.manifest["counts"]
    assert (counts["articles_in"], counts["written"]) == (len(lines), len(talks) + 1)
    assert counts["dropped"] == {"duplicate": 1, "empty conversation": 1, "no conversation": 1}
    dropped = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert [row["id"] for row in dropped] == [f"a.jsonl#{len(talks) + i}" for i in (0, 1, 3)]
    codec = TextCodec(made.tokenizer_folder)
    assert codec.tokenizer.vocab == open_tokenizer(corpus / "tokenizer").vocab
    for i, talk in enumerate(talks):
        ids, learnt = render(talk, codec.tokenizer, codec.encode)
        assert made.article(i).tolist() == [codec.tokenizer.cls_id, *ids, codec.tokenizer.sep_id]
        assert made.learnt(i).tolist() == [False, *learnt, False]
        said = [message.content for message in talk if message.role == "assistant"]
        assert made.articles["learnt_chars"][i].as_py() == sum(map(len, said))
        assert made.articles["chars"][i].as_py() == sum(len(message.content) for message in talk)
    literal = made.article(len(talks))
    assert sum(int(i) == codec.tokenizer.end_id for i in literal) == 2, "a message became a role token"
    assert codec.decode(literal[made.learnt(len(talks))].tolist()) == "[END] [ASSISTANT] 나"

    caplog.clear()
    with caplog.at_level(logging.INFO):
        preprocess(options)
        assert "there is nothing to do" in caplog.text
        preprocess(replace(options, output=str(tmp_path / "again"), workers=1))
    assert re.search("morphemes: all .*are already done", caplog.text)
    assert checksums(options) == checksums(replace(options, output=str(tmp_path / "again")))


def options_with(**fields: object) -> Options:
    return replace(Options(input=("x",), output="y"), **fields)  # type: ignore[arg-type]


def test_the_vocabulary_of_a_run_or_corpus_brings_its_analyzer(corpus: Path, run: Path) -> None:
    for folder in (corpus, run):
        options = settled(options_with(tokenizer=str(folder)))
        assert (options.analyzer, options.spacing) == ("none", "original")
        tokenizer = loaded(options, analyzer_identity("none"))
        assert tokenizer is not None
        assert tokenizer.vocab == open_tokenizer(folder / "tokenizer").vocab
        assert settled(options) == options
        for flag, value in (("analyzer", "kiwi"), ("spacing", "morphemes")):
            with pytest.raises(UserError, match=f"--{flag} {value}: the vocabulary of .* leave out --{flag}"):
                settled(options_with(tokenizer=str(folder), **{flag: value}))


def test_only_the_role_tokens_are_appended(caplog: pytest.LogCaptureFixture) -> None:
    options = settled(options_with(tokenizer=str(OLD / "run")))
    assert options.analyzer == "kkma"
    identity = analyzer_identity("kkma") | {"kkma": "another"}
    tokenizer = loaded(options, identity)
    assert tokenizer is not None
    old = open_tokenizer(OLD / "run" / "tokenizer")
    assert tokenizer.vocab == [*old.vocab, *ROLE_PIECES]
    assert (tokenizer.source, tokenizer.base_size, tokenizer.analyzer) == (old.source, old.base_size, identity)
    assert "differs from the one of" in caplog.text


def test_other_vocabularies_are_none_of_its_business(corpus: Path) -> None:
    for options in (options_with(vocab_size=500), options_with(tokenizer=str(corpus / "tokenizer"))):
        assert settled(options) is options
    assert loaded(options_with(vocab_size=500), {"name": "none"}) is None
