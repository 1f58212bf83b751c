"""`kogpt inspect`: counts, a sample, decoded texts, and reported damage."""

import json
import re

import pytest
from builders import conversations, encoded, make_tokenizer, write_corpus

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.inspect import inspect
from kogpt.tokenizer.wordpiece import open_tokenizer

TEXTS = ["학교에 갔다.\n[bold]한글[/bold]은  쉽다 👍", " 漢字\t\n\n끝 "]


@pytest.fixture
def articles(tmp_path):
    tokenizer = make_tokenizer(TEXTS * 3)
    rows = encoded(tokenizer, TEXTS, "기사")
    row = {"id": "x", "source": "a.json", "status": "dropped", "reason": "empty text", "detail": ""}
    return write_corpus(tmp_path / "corpus", tokenizer, rows, val_fraction=0.5, dropped=[row])


def test_shows_counts_sample_and_checksums(articles, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    inspect(articles)
    out = capsys.readouterr().out
    for part in ("empty text", "articles in", "기사:0", "갔다.", "[LF]", "[CLS]", "[bold]한글[/bold]은", "trained-300"):
        assert part in out
    assert "files are intact" in out


def test_decode_gives_the_texts_back(articles, tmp_path):
    inspect(articles, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert rows == [{"id": f"기사:{i}", "text": text} for i, text in enumerate(TEXTS)]


def test_a_card_and_texts_are_not_written_at_once(articles, tmp_path, capsys):
    with pytest.raises(UserError, match="--decode without it"):
        inspect(articles, tmp_path / "out.jsonl", data_card=True)
    assert capsys.readouterr().out == ""


def test_damage_is_an_error_that_names_the_file(articles, tmp_path, capsys):
    shard = articles / "tokens-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"damaged: tokens-00000\.npy has"):
        inspect(articles, tmp_path / "out.jsonl")
    assert "articles in" in capsys.readouterr().out
    assert not (tmp_path / "out.jsonl").exists()


def test_not_a_corpus(tmp_path):
    with pytest.raises(UserError, match="not a finished token corpus"):
        inspect(tmp_path)


GREEN, PLAIN = "\x1b[1;32m", "\x1b[0m"


def test_learnt_tokens_of_a_conversation_are_green(chat_corpus, capsys, monkeypatch):
    """On a terminal. The colored words are exactly the answers and their [END]."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "1000")
    inspect(chat_corpus)
    out = capsys.readouterr().out
    line = next(line for line in out.split("\n") if "[ASSISTANT]" in line)
    green = re.findall(rf"{re.escape(GREEN)}(.*?){re.escape(PLAIN)}", line)
    corpus = TokenCorpus.open(chat_corpus)
    tokens = open_tokenizer(corpus.tokenizer_folder).tokens(corpus.article(0).tolist())
    assert green == [token for token, learnt in zip(tokens, corpus.learnt(0), strict=True) if learnt]
    assert green[-1] == "[END]"
    assert "conversations in" in out


def test_without_a_terminal_it_is_plain(chat_corpus, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    inspect(chat_corpus)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert re.search(r"learnt \(green\) . " + conversations()[0][-1].content, out)


def test_decoded_conversations_can_be_preprocessed_again(chat_corpus, tmp_path):
    inspect(chat_corpus, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert rows[0]["id"] == "kolaw:0"
    assert [row["messages"] for row in rows] == [[m._asdict() for m in talk] for talk in conversations()]


def test_a_narrow_terminal_hides_no_token(chat_corpus, capsys, monkeypatch):
    for width in range(40, 70):
        monkeypatch.setenv("COLUMNS", str(width))
        inspect(chat_corpus)
        assert "…" not in capsys.readouterr().out, width
