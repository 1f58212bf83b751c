"""Windows of conversations: what is scored, what is cut, and that neighbors in a window do not meet."""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import conversed, encode_with, make_tokenizer, scattered, shape_of, write_corpus
from hypothesis import given
from hypothesis import strategies as st

from kogpt.common.errors import UserError
from kogpt.data.conversations import Conversations
from kogpt.data.corpus import TokenCorpus
from kogpt.data.loader import Share, TrainBatches, starts_of_documents
from kogpt.data.sources import ArticleWindows, ConversationWindows
from kogpt.model.loss import IGNORED
from kogpt.tokenizer.chat import Message, prompt
from kogpt.tokenizer.wordpiece import Tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def talks(chat_corpus: Path) -> TokenCorpus:
    return TokenCorpus.open(chat_corpus)


def _scored(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[int]:
    """The targets of a conversation that are learnt, by its role tokens: from [ASSISTANT] to the next [END]."""
    assert tokenizer.roles is not None
    found, within = [], False
    for token in tokens:
        if within:
            found.append(int(token))
        if token in (tokenizer.roles["assistant"], tokenizer.end_id):
            within = token == tokenizer.roles["assistant"]
    return found


def test_the_targets_of_every_window_are_the_answers_and_their_ends(talks: TokenCorpus, tokenizer: Tokenizer) -> None:
    source = ConversationWindows(talks, 96)
    expected = sorted(_scored(tokenizer, talks.article(int(i)).tolist()) for i in talks.split("train"))
    found = []
    for number in range(source.windows):
        ids, targets, positions, documents = source.window(number)
        assert positions is not None
        assert documents is not None
        assert source.targets(np.array([number])) == (targets != IGNORED).sum()
        for document in range(1, documents.max() + 1):
            own = documents == document
            assert positions[own].tolist() == list(range(own.sum()))
            whole = [*ids[own], tokenizer.sep_id]
            scored = targets[own] != IGNORED
            assert targets[own][scored].tolist() == np.array(whole[1:])[scored].tolist()
            found.append(targets[own][scored].tolist())
            assert found[-1] == _scored(tokenizer, whole)
        assert (targets[documents == 0] == IGNORED).all()
    assert sorted(found) == expected


def test_1000_random_conversations_are_scored_in_the_answers_and_nowhere_else(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """What is expected comes from the messages, some of which contain role tokens as text."""
    generator = random.Random(0)
    words = ["국민은", "법률이", "권리를", "뷁", "##가", "[END]", "[ASSISTANT]", "[USER]", "\n", "  ", "가나"]

    def text() -> str:
        return " ".join(["모든", *generator.choices(words, k=generator.randint(0, 5))])

    talks = []
    for _ in range(1000):
        said = [Message("system", text())] if generator.random() < 0.3 else []
        for _ in range(generator.randint(1, 3)):
            said += [Message("user", text()), Message("assistant", text())]
        talks.append(said)
    folder = write_corpus(tmp_path, tokenizer, conversed(tokenizer, talks), val_fraction=0, kind="conversations")
    source = ConversationWindows(TokenCorpus.open(folder), 512)
    found = []
    for number in range(source.windows):
        _, targets, _, documents = source.window(number)
        assert documents is not None
        scored = targets != IGNORED
        found += [targets[scored & (documents == n)].tolist() for n in range(1, documents.max() + 1)]
        assert not scored[documents == 0].any()
    end = tokenizer.end_id
    answers = [[message.content.strip() for message in talk if message.role == "assistant"] for talk in talks]
    assert sorted(found) == sorted([i for text in own for i in (*encode_with(tokenizer, text), end)] for own in answers)


@pytest.mark.parametrize("arch", ["gpt2", "qwen3"])
def test_changing_one_conversation_leaves_the_logits_of_its_neighbors(
    talks: TokenCorpus, tokenizer: Tokenizer, arch: str
) -> None:
    model = scattered(shape_of(arch, vocab_size=tokenizer.vocab_size, max_seq_len=192))
    source = ConversationWindows(talks, 192)
    window = source.window(source.windows - 1)  # of the shortest
    assert window.documents is not None
    assert window.documents.max() >= 3
    ids, _, positions, documents = (torch.from_numpy(column)[None] for column in window if column is not None)
    starts = torch.from_numpy(starts_of_documents(documents.numpy()))
    with torch.no_grad():
        before = model(ids, positions=positions, documents=starts)
        for document in range(1, int(documents.max()) + 1):
            changed = ids.clone()
            changed[documents == document] = (changed[documents == document] + 5) % tokenizer.vocab_size
            after = model(changed, positions=positions, documents=starts)
            assert torch.equal(after[documents != document], before[documents != document])
            assert not torch.equal(after[documents == document], before[documents == document])
        # Each of them alone, in a row of its own, as in a chat.
        for document in range(1, int(documents.max()) + 1):
            alone = model(ids[documents == document][None])
            assert torch.allclose(alone[0], before[documents == document], atol=1e-5)


def test_one_that_is_too_long_is_what_a_chat_would_keep_of_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    talk = [Message("system", "헌법을 아는 사람이다.")]
    talk += [message for n in range(9) for message in (Message("user", f"제{n}조는?"), Message("assistant", "법이다."))]
    long = [Message("user", "대한민국은 민주공화국이다. " * 30), Message("assistant", "네.")]
    folder = write_corpus(
        tmp_path / "chat",
        tokenizer,
        conversed(tokenizer, [talk, long]),
        val_fraction=0,
        kind="conversations",
    )
    kept = Conversations(TokenCorpus.open(folder), "train", 60)
    assert (len(kept), kept.shortened, kept.left_out) == (1, 1, ["kolaw:1"])
    ids, learnt = kept.tokens(0)
    assert len(ids) <= 60
    question = prompt(
        talk[:-1], tokenizer, partial(encode_with, tokenizer), 60 - len(encode_with(tokenizer, "법이다.")) - 2
    )
    assert question.dropped_turns > 0
    assert ids.tolist() == [*question.ids, *encode_with(tokenizer, "법이다."), tokenizer.end_id, tokenizer.sep_id]
    turns = 9 - question.dropped_turns
    assert kept.learnt_chars(0) == len("법이다.") * turns
    assert learnt.sum() == kept.learnt_counts[0] == turns * (len(encode_with(tokenizer, "법이다.")) + 1)
    assert kept.report() == [
        "Of more than 60 tokens, and without their oldest turns: 1.",
        "Left out, because the newest turn has more than 60 tokens or nothing to learn: 1 (kolaw:1).",
    ]
    with pytest.raises(UserError, match="no conversation of the train split"):
        ConversationWindows(TokenCorpus.open(folder), 10)


def test_the_characters_of_one_that_lost_turns_are_those_of_its_answers_not_of_their_morphemes(tmp_path: Path) -> None:
    answer = "법, 곧 약속이다."  # of morphemes: "법 , 곧 약속이다 ."
    tokenizer = make_tokenizer([answer] * 9, spacing="morphemes")
    talk = [message for _ in range(9) for message in (Message("user", "법은?"), Message("assistant", answer))]
    folder = write_corpus(tmp_path, tokenizer, conversed(tokenizer, [talk]), val_fraction=0, kind="conversations")
    whole, kept = (Conversations(TokenCorpus.open(folder), "train", limit) for limit in (10**4, 60))
    assert (whole.shortened, whole.learnt_chars(0)) == (0, 9 * len(answer))
    assert kept.shortened == 1
    turns = 9 * kept.learnt_counts[0] // whole.learnt_counts[0]
    assert 0 < turns < 9
    assert kept.learnt_chars(0) == turns * len(answer)


@pytest.mark.parametrize("by_article", [False, True])
def test_a_corpus_without_articles_is_refused(tmp_path: Path, tokenizer: Tokenizer, by_article: bool) -> None:
    empty = TokenCorpus.open(write_corpus(tmp_path, tokenizer, []))
    with pytest.raises(UserError, match="has 0 tokens, fewer than one window"):
        ArticleWindows(empty, 48, by_article)


def test_a_window_of_articles_knows_where_they_begin(corpus: Path, tokenizer: Tokenizer) -> None:
    opened = TokenCorpus.open(corpus)
    plain, split = ArticleWindows(opened, 48), ArticleWindows(opened, 48, by_article=True)
    assert plain.windows == split.windows
    begins = 0
    for number in range(split.windows):
        ids, targets, positions, documents = split.window(number)
        assert positions is None, "rotary positions need not restart"
        assert documents is not None
        assert [ids.tolist(), targets.tolist()] == [part.tolist() for part in plain.window(number)[:2]]
        steps = np.diff(documents, prepend=0)
        assert ((steps == 1) == (ids == tokenizer.cls_id)).all()
        assert ((steps == 0) == (ids != tokenizer.cls_id)).all()
        begins += int(steps.sum())
    assert begins > 1


@given(
    seed=st.integers(0, 1000), world=st.sampled_from([1, 2, 4]), consumed=st.integers(0, 500), by_article=st.booleans()
)
def test_the_number_of_targets_is_known_to_every_rank(
    chat_corpus: Path, corpus: Path, seed: int, world: int, consumed: int, by_article: bool
) -> None:
    more: dict[str, Any] = {"seed": seed, "by_article": by_article}
    mixed = [(TokenCorpus.open(chat_corpus), 0.8), (TokenCorpus.open(corpus), 0.2)]
    targets, scored, rows = set(), 0, []
    for rank in range(world):
        share = Share(2, 4 // world, rank, world, CPU)
        step = TrainBatches(mixed, max_seq_len=64, share=share, **more).step(consumed)
        targets.add(step.targets)
        for ids, wanted, positions, documents in step.micro_batches:
            assert documents is not None
            assert {0, 64, 128} <= {*documents.tolist()}, "a document ends with its row"
            assert positions is None or positions.shape == ids.shape
            scored += int((wanted != IGNORED).sum())
            rows += [row.tolist() for row in ids]
    assert targets == {scored}
    whole = TrainBatches(mixed, max_seq_len=64, share=Share(8, 1, 0, 1, CPU), **more).step(consumed)
    assert sorted(rows) == sorted(row.tolist() for batch in whole.micro_batches for row in batch.ids)
