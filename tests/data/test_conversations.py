"""A corpus of conversations: every token knows whether it is learnt, also across shards, and the manifest says so."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders import conversations, conversed, write_corpus

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus, count_rows
from kogpt.data.pt_windows import export_windows
from kogpt.tokenizer.wordpiece import Tokenizer


def test_flags_lie_beside_their_tokens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    talks = conversations()
    written = list(conversed(tokenizer, talks))
    folder = write_corpus(tmp_path / "corpus", tokenizer, written, kind="conversations", shard_ids=500)
    corpus = TokenCorpus.open(folder)
    assert corpus.kind == "conversations"
    assert corpus.verify() == []
    assert len(list(folder.glob("learnt-*.npy"))) == len(list(folder.glob("tokens-*.npy"))) > 3
    for i, one in enumerate(written):
        assert corpus.article(i).tolist() == [tokenizer.cls_id, *one["ids"], tokenizer.sep_id]
        assert corpus.learnt(i).tolist() == [False, *one["learnt"], False]
        assert corpus.learnt(i).dtype == np.bool_
        said = [message.content for message in talks[i] if message.role == "assistant"]
        assert corpus.articles["learnt_chars"][i].as_py() == sum(map(len, said))
    counts = corpus.manifest["counts"]
    assert counts["learnt_ids"] == sum(sum(one["learnt"]) for one in written)
    assert sum(split["learnt_ids"] for split in counts["splits"].values()) == counts["learnt_ids"]
    assert ("conversations in", "66") in count_rows(counts)


def test_articles_keep_their_format_and_an_older_version_refuses_conversations(corpus: Path, chat_corpus: Path) -> None:
    articles, talks = (json.loads((folder / "manifest.json").read_bytes()) for folder in (corpus, chat_corpus))
    assert (articles["version"], talks["version"]) == (1, 2)
    assert "kind" not in articles
    assert "learnt_ids" not in articles["counts"]
    assert TokenCorpus.open(corpus).kind == "articles"
    assert not list(corpus.glob("learnt-*"))


@pytest.mark.parametrize("change", [{"kind": "pictures"}, {"version": 1}, {"version": 3}])
def test_a_kind_from_the_future_is_refused(chat_corpus: Path, tmp_path: Path, change: dict[str, object]) -> None:
    manifest = json.loads((chat_corpus / "manifest.json").read_bytes()) | change
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json is not"):
        TokenCorpus.open(tmp_path)


def test_a_conversation_without_a_learnt_token_is_a_bug(tokenizer: Tokenizer, tmp_path: Path) -> None:
    one = next(conversed(tokenizer, conversations()))
    for flags in (None, [False] * len(one["ids"]), one["learnt"][1:]):
        with pytest.raises(ValueError, match="conversation kolaw:0"):
            write_corpus(tmp_path, tokenizer, [one | {"learnt": flags}], kind="conversations")


def test_windows_of_conversations_are_refused(chat_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which tokens are learnt"):
        export_windows(chat_corpus, tmp_path / "pt", "pt")
    assert not (tmp_path / "pt").exists()
