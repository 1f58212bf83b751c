"""The rules for turns: who is who, what is joined, what is left out, and the reason for what is dropped."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt.tokenizer.chat import Message
from kogpt.tokenizer.normalize import normalize
from preprocess import personal
from preprocess.conversations import Packed, Turn, as_text, conversation, pack, placed_messages, sizes
from preprocess.streams import Broken


def said(*turns: tuple[str, str | None]) -> list[tuple[str, str]] | str:
    """The messages of a conversation, or the reason why it is none."""
    result = conversation([Turn(*turn) for turn in turns])
    if isinstance(result, Broken):
        return result.reason
    return [(message.role, message.content) for _, message in placed_messages(result.text)]


QA = [("user", "물음"), ("assistant", "답")]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("user", "물음"), ("assistant", "답")], QA),
        ([("human", "물음"), ("gpt", "답")], QA),
        ([("Human", " 물음\n"), ("AI", "답")], QA),
        ([("P01", "물음"), ("P02", "답")], QA),
        # one name of two is known: the other speaker has the other role
        ([("gpt-9", "어서 오세요."), ("human", "물음"), ("gpt-9", "답")], QA),
        ([("상담사", "어서 오세요."), ("민원인", "물음"), ("상담사", "답")], QA),
        ([("민원인", "물음"), ("상담사", "답")], QA),
        ([("고객", "물음"), ("영업", "답")], QA),
        ([("system", "짧게."), ("gpt", "네."), ("P01", "물음"), ("gpt", "답")], [("system", "짧게."), *QA]),
        ([("system", "짧게."), *QA], [("system", "짧게."), *QA]),
        ([("system", "하나."), ("system", "둘."), *QA], [("system", "하나.\n둘."), *QA]),
        ([("가", "물"), ("가", "음"), ("나", "답"), ("나", " ")], [("user", "물\n음"), ("assistant", "답")]),
        ([("가", "물음"), ("나", "답"), ("나", " "), ("나", "변")], [("user", "물음"), ("assistant", "답\n변")]),
        ([("assistant", "어서 오세요."), *QA, ("user", "고마워")], QA),
        ([("user", "물음"), ("assistant", ""), ("user", "또"), ("assistant", "답")], [("user", "물음\n또"), QA[1]]),
        ([], "empty conversation"),
        ([("user", " \n"), ("assistant", "\x07")], "empty conversation"),
        ([("user", "물음")], "no assistant turn"),
        ([("assistant", "답")], "no assistant turn"),
        ([("system", "짧게.")], "no assistant turn"),
        ([("user", "물음"), ("assistant", " ")], "no assistant turn"),
        ([("가", "1"), ("나", "2"), ("다", "3")], "more than two speakers"),
        ([("user", "1"), ("assistant", "2"), ("tool", "3")], "unknown role"),
        ([*QA, ("system", "이제부터")], "unknown role"),
        ([("user", None), ("assistant", "답")], "not text"),
    ],
)  # fmt: skip
def test_rules(turns: list[tuple[str, str | None]], expected: Any) -> None:
    assert said(*turns) == expected


TEXT = st.text(st.one_of(st.characters(), st.sampled_from("가 \n\x1c\x1d\x1e[END]")), max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["가", "나"]), TEXT), max_size=8))
@settings(max_examples=300)
def test_what_is_packed_is_normalized_and_alternates(turns: list[tuple[str, str]]) -> None:
    result = conversation([Turn(*turn) for turn in turns])
    if isinstance(result, Broken):
        assert result.reason in ("empty conversation", "no assistant turn")
        return
    messages = [message for _, message in placed_messages(result.text)]
    assert [message.role for message in messages] == ["user", "assistant"] * (len(messages) // 2)
    assert pack(messages) == result.text
    for start, message in placed_messages(result.text):
        assert message.content
        assert message.content == message.content.strip() == normalize(message.content)[0]
        assert result.text[start : start + len(message.content)] == message.content
    assert sizes(result.text) == {
        "chars": len(result.text) - len(messages),
        "learnt_chars": sum(len(message.content) for message in messages[1::2]),
    }


def test_an_article_is_one_message_without_a_role() -> None:
    assert placed_messages("글") == [(0, Message("", "글"))]
    assert placed_messages("") == [(0, Message("", ""))]
    assert sizes("글 하나") == {"chars": 4}


def test_what_normalization_removed_is_counted() -> None:
    result = conversation([Turn("가", "물\x00음\ud800"), Turn("나", "\x00답")])
    assert isinstance(result, Packed)
    assert (result.removed.controls, result.removed.surrogates) == (2, 1)


def test_masks_of_personal_data_keep_who_speaks() -> None:
    said = [Message("user", "010-1234-5678"), Message("assistant", "a@kogpt.kr 900101-1234568"), Message("user", "응")]
    masked = [message for _, message in placed_messages(personal.mask(pack(said))[0])]
    assert [message.role for message in masked] == ["user", "assistant", "user"]
    assert [message.content for message in masked] == ["[휴대전화번호]", "[이메일] [주민등록번호]", "응"]


def test_parts_of_a_message() -> None:
    assert as_text("글") == "글"
    assert as_text([{"type": "text", "text": "글"}, {"type": "text", "text": "자"}]) == "글자"
    for other in (None, 3, [{"type": "image_url", "image_url": {"url": "x"}}], {"text": "글"}):
        assert as_text(other) is None
