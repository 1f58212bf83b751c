import hashlib
import json

import pytest

from kogpt.common.errors import UserError
from kogpt.data.corpus import CorpusWriter
from kogpt.data.inspect import inspect
from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.wordpiece import train_tokenizer

TEXTS = ["학교에 갔다.\n[bold]한글[/bold]은  쉽다 👍", " 漢字\t\n\n끝 "]


@pytest.fixture
def corpus(tmp_path):
    documents = [(text, Analysis([2], [], None)) for text in TEXTS]
    tokenizer = train_tokenizer(documents * 3, 300, spacing="original", analyzer={"name": "none"})
    writer = CorpusWriter(tmp_path / "corpus", tokenizer, val_fraction=0.5, settings={})
    for i, (text, analysis) in enumerate(documents):
        ids = tokenizer.encode(text, analysis)
        writer.add(
            id=f"기사-{i}",
            source="a.json",
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
            chars=len(text),
            ids=ids,
            unknown_ids=tokenizer.count_unknown(ids),
        )
    row = {"id": "x", "source": "a.json", "status": "dropped", "reason": "empty text", "detail": ""}
    writer.finish(articles_in=3, dropped=[row], removed_controls=0, removed_surrogates=0)
    return tmp_path / "corpus"


def test_shows_counts_sample_and_checksums(corpus, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    inspect(corpus)
    out = capsys.readouterr().out
    for part in ("empty text", "articles in", "기사-0", "갔다.", "[LF]", "[CLS]", "[bold]한글[/bold]은", "trained-300"):
        assert part in out
    assert "files are as they were written" in out


def test_decode_gives_the_texts_back(corpus, tmp_path):
    inspect(corpus, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert rows == [{"id": f"기사-{i}", "text": text} for i, text in enumerate(TEXTS)]


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
