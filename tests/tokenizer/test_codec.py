"""Prompts are encoded exactly like articles, and decoding starts no analyzer."""

import json

import pytest

from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import train_tokenizer

TEXT = "학교에 갔다.\n한글은 쉽다."


@pytest.fixture
def folder(tmp_path):
    documents = [(TEXT, Analysis([], [], None))] * 3
    train_tokenizer(documents, 300, spacing="original", analyzer={"name": "none"}).save(tmp_path)
    return tmp_path


def test_prompts_go_through_what_articles_went_through(folder):
    codec = TextCodec(folder)
    assert codec.encode(TEXT) == codec.tokenizer.encode(TEXT, Analysis([], [], None))
    assert codec.decode(codec.encode("  학교\r\n👍\x00")) == "  학교\n👍"
    assert codec.encode("") == []


def test_nothing_is_started_to_decode(folder, monkeypatch):
    def refuse(name):
        raise AssertionError("an analyzer was started")

    monkeypatch.setattr("kogpt.tokenizer.codec.load_analyzer", refuse)
    codec = TextCodec(folder)
    assert codec.decode([5]) != ""
    with pytest.raises(AssertionError):
        codec.encode("학교")


def test_another_version_of_the_analyzer_is_told(folder):
    path = folder / "kogpt.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"analyzer": {"name": "none", "version": "0"}}))
    with pytest.warns(UserWarning, match="version"):
        TextCodec(folder).encode("학교")
