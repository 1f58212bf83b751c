"""`kogpt inspect`: counts, a sample, decoded texts, and reported damage."""

import json

import pytest
from builders import encoded, make_tokenizer, write_corpus

from kogpt.common.errors import UserError
from kogpt.data.inspect import inspect

TEXTS = ["학교에 갔다.\n[bold]한글[/bold]은  쉽다 👍", " 漢字\t\n\n끝 "]


@pytest.fixture
def corpus(tmp_path):
    tokenizer = make_tokenizer(TEXTS * 3)
    articles = encoded(tokenizer, TEXTS, "기사")
    row = {"id": "x", "source": "a.json", "status": "dropped", "reason": "empty text", "detail": ""}
    return write_corpus(tmp_path / "corpus", tokenizer, articles, val_fraction=0.5, dropped=[row])


def test_shows_counts_sample_and_checksums(corpus, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    inspect(corpus)
    out = capsys.readouterr().out
    for part in ("empty text", "articles in", "기사:0", "갔다.", "[LF]", "[CLS]", "[bold]한글[/bold]은", "trained-300"):
        assert part in out
    assert "files are intact" in out


def test_decode_gives_the_texts_back(corpus, tmp_path):
    inspect(corpus, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert rows == [{"id": f"기사:{i}", "text": text} for i, text in enumerate(TEXTS)]


def test_damage_is_an_error_that_names_the_file(corpus, tmp_path, capsys):
    shard = corpus / "tokens-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"damaged: tokens-00000\.npy has"):
        inspect(corpus, tmp_path / "out.jsonl")
    assert "articles in" in capsys.readouterr().out
    assert not (tmp_path / "out.jsonl").exists()


def test_not_a_corpus(tmp_path):
    with pytest.raises(UserError, match="not a finished token corpus"):
        inspect(tmp_path)
