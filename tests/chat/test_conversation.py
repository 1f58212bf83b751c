"""What the commands of the terminal do to a conversation."""

from pathlib import Path

import pytest

from kogpt.chat.conversation import Conversation
from kogpt.common.errors import UserError


def test_undo_and_retry_go_back_to_the_last_question() -> None:
    talk = Conversation()
    assert not talk.undo()
    assert not talk.retry()
    for text in ("하나", "둘"):
        talk.ask(text)
        talk.answer(text + "!")
    assert talk.retry()
    assert [m.content for m in talk.turns] == ["하나", "하나!", "둘"]
    assert talk.undo()
    assert [m.content for m in talk.turns] == ["하나", "하나!"]
    talk.system = "짧게"
    talk.clear()
    assert talk.messages == [("system", "짧게")]


def test_a_saved_conversation_comes_back(tmp_path: Path) -> None:
    talk = Conversation()
    talk.system = "짧게 답한다."
    talk.ask('"[END]" <b> 😀')
    talk.answer("네\n네")
    talk.save(tmp_path / "말.json")
    other = Conversation()
    other.load(tmp_path / "말.json")
    assert other.messages == talk.messages


def test_half_characters_are_left_out(tmp_path: Path) -> None:
    """A terminal that is not UTF-8 gives lone surrogates, and JSON can contain them; no file can."""
    (tmp_path / "half.json").write_text('{"messages": [{"role": "user", "content": "하나\\ud83d"}]}', encoding="utf-8")
    talk = Conversation()
    talk.load(tmp_path / "half.json")
    talk.ask("둘\udcff")
    talk.save(tmp_path / "whole.json")
    assert [m.content for m in talk.messages] == ["하나", "둘"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"messages": 3}', '{"messages": [{"role": "x", "content": "y"}]}'])
def test_what_is_no_conversation_changes_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(content)
    talk = Conversation()
    talk.ask("하나")
    with pytest.raises(UserError, match=r"bad.json is not a conversation"):
        talk.load(tmp_path / "bad.json")
    with pytest.raises(UserError, match=r"nowhere.json cannot be read"):
        talk.load(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="there is no folder"):
        talk.save(tmp_path / "no" / "where.json")
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        talk.save(tmp_path)
    for use in (talk.save, talk.load):
        with pytest.raises(UserError, match=r"cannot be (written|read): File name too long"):
            use(tmp_path / ("x" * 300) / "talk.json")
    assert [m.content for m in talk.messages] == ["하나"]
