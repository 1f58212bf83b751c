"""Conversations as tokens: what they consist of, what is learnt, what a prompt leaves out, and what text cannot do."""

from functools import partial
from pathlib import Path

import pytest
from builders import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_version_0_1 import OLD

from kogpt.common.errors import UserError
from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.chat import Message, PromptTooLong, parse, prompt, render
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.pieces import ROLE_PIECES
from kogpt.tokenizer.wordpiece import Tokenizer, open_tokenizer, with_roles

TOKENIZER = make_tokenizer()
LITERALS = [*ROLE_PIECES, "[CLS]", "[SEP]", "##[END]", "[", "]", "END", "##", "\n", " ", "학교에", "비가"]
CONTENTS = st.lists(st.one_of(st.sampled_from(LITERALS), st.text(max_size=4)), max_size=6).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """A system message or none, then turns of a user and an assistant."""
    system = [Message("system", draw(CONTENTS))] if draw(st.booleans()) else []
    turns = draw(st.lists(st.tuples(CONTENTS, CONTENTS), max_size=3))
    return system + [m for u, a in turns for m in (Message("user", u), Message("assistant", a))]


def encode(text: str, tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    """As `TextCodec.encode` does it, which needs a folder."""
    text, _ = normalize(text)
    return tokenizer.encode(text, load_analyzer("none").analyze(text)) if text else []


def pieces(messages: list[Message]) -> list[str]:
    return TOKENIZER.tokens(render(messages, TOKENIZER, encode)[0])


def test_every_new_vocabulary_ends_with_the_role_tokens(tmp_path: Path) -> None:
    assert tuple(TOKENIZER.vocab[-8:]) == ROLE_PIECES
    assert TOKENIZER.roles == {
        "system": TOKENIZER.vocab_size - 8,
        "user": TOKENIZER.vocab_size - 7,
        "assistant": TOKENIZER.vocab_size - 6,
    }
    assert TOKENIZER.end_id == TOKENIZER.vocab_size - 5
    TOKENIZER.save(tmp_path)
    assert open_tokenizer(tmp_path).roles == TOKENIZER.roles


def test_an_older_vocabulary_has_none_until_they_are_appended() -> None:
    old = open_tokenizer(OLD / "corpus" / "tokenizer")
    assert old.roles is None
    assert old.base_sha256 == old.sha256
    new = with_roles(old)
    assert new.vocab == [*old.vocab, *ROLE_PIECES]
    assert new.base_sha256 == old.sha256
    assert with_roles(new) is new
    with pytest.raises(UserError, match="no role tokens"):
        render([Message("user", "나")], old, partial(encode, tokenizer=old))


def test_a_conversation_as_tokens() -> None:
    said = [Message("system", "나는"), Message("user", "학교에"), Message("assistant", " 친구가 갔다. \n")]
    assert pieces(said) == [
        *("[SYSTEM]", "나는", "[END]", "[USER]", "학교에", "[END]"),
        *("[ASSISTANT]", *TOKENIZER.tokens(encode("친구가 갔다.")), "[END]"),
    ]
    assert pieces([]) == []
    with pytest.raises(ValueError, match="tool"):
        pieces([Message("tool", "나")])


@given(conversations())
@settings(max_examples=1000)
def test_the_assistants_words_and_their_end_are_learnt_and_nothing_else(said: list[Message]) -> None:
    assert TOKENIZER.roles is not None
    ids, learnt = render(said, TOKENIZER, encode)
    expected_ids: list[int] = []
    expected: list[bool] = []
    for role, content in said:
        own = encode(normalize(content)[0].strip())
        assert not {*TOKENIZER.roles.values(), TOKENIZER.end_id} & {*own}, "text became a role token"
        assert TOKENIZER.decode(render([Message(role, content)], TOKENIZER, encode)[0]) == normalize(content)[0].strip()
        expected_ids += [TOKENIZER.roles[role], *own, TOKENIZER.end_id]
        expected += [False, *[role == "assistant"] * len(own), role == "assistant"]
    assert (ids, learnt) == (expected_ids, expected)
    assert parse(ids, TOKENIZER) == [Message(role, normalize(content)[0].strip()) for role, content in said]


def test_a_prompt_leaves_out_the_oldest_turns_and_keeps_the_system_message() -> None:
    system = Message("system", "나는")
    turns = [m for i in range(4) for m in (Message("user", f"학교에 {i}"), Message("assistant", f"친구가 {i}"))]
    said = [system, *turns, Message("user", "어제는")]
    whole = prompt(said, TOKENIZER, encode, 1000)
    assert whole.dropped_turns == 0
    assert TOKENIZER.tokens(whole.ids) == ["[CLS]", *pieces(said), "[ASSISTANT]"]
    analyzed: list[str] = []

    def noted(text: str) -> list[int]:
        analyzed.append(text)
        return encode(text)

    last = pieces([system, *turns[6:], said[-1]])
    cut = prompt(said, TOKENIZER, noted, len(last) + 2)
    assert TOKENIZER.tokens(cut.ids) == ["[CLS]", *last, "[ASSISTANT]"]
    assert cut.dropped_turns == 3
    assert turns[0].content not in analyzed, "what does not fit costs no analysis"
    assert prompt(said, TOKENIZER, encode, len(last) + 1).dropped_turns == 4
    least = len(prompt([system, said[-1]], TOKENIZER, encode, 1000).ids)
    assert prompt(said, TOKENIZER, encode, least).dropped_turns == 4
    with pytest.raises(PromptTooLong):
        prompt(said, TOKENIZER, encode, least - 1)
    assert prompt([system], TOKENIZER, encode, 5).dropped_turns == 0
    with pytest.raises(PromptTooLong):
        prompt([system], TOKENIZER, encode, 4)
