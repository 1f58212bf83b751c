"""`--layout chat`: where the conversations are in a JSON value or table row, whatever its format.

- A list of turns, each with a speaker and a text, anywhere in the value: OpenAI's `messages`, ShareGPT's
  `conversations`, AI Hub's and NIKL's dialogues (`data[].body[]`, `info[].annotations.lines[]`,
  `document[].utterance[]`, `sessionInfo[].dialog[]`). A `dialogue` of strings or pairs of strings is spoken by turns.
- A question and its answer: `instruction`/`input`/`output`, `question`/`answer`, `Q`/`A`, and others of `_PAIRS`, after
  a `system` message and a `history` of pairs if there are any. The `rejected` answer of preference data is not read.
- AI Hub's emotional dialogues: `HS01`, `SS01`, ... or columns such as 사람문장1, 시스템문장1.
- A table or JSON lines with one turn a row (KakaoTalk's `User`, `Message`; AI Hub's `SPEAKER`, `SENTENCE`, or 화자):
  neighboring rows of one conversation by a column such as `dialogue_id`, or else all rows of the file.

In: a value. Out: packed conversations (preprocess.conversations), or reasons.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from preprocess.conversations import Packed, Turn, as_text, conversation
from preprocess.layouts import Layout, Preset
from preprocess.streams import Broken

_SPEAKERS = ("role", "from", "speaker", "speaker_id", "speakerid", "participantid", "persona_id", "user", "sender",
             "화자", "발화자")  # fmt: skip
_TEXTS = (
    *("content", "value", "norm_text", "form", "utterance", "text", "message", "sentence", "발화", "발화문"),
    *("고객질문(요청)", "상담사질문(요청)", "고객답변", "상담사답변"),  # one of them has the text, the others are empty
)
_LISTS = ("messages", "conversations", "conversation", "dialogue", "dialog", "utterances", "utterance")
_NUMBERS = (
    "conversation_id",
    "conv_id",
    "dialogue_id",
    "dialog_id",
    "dialogueid",
    "session_id",
    "대화id",
    "대화셋일련번호",
)
_PAIRS = (
    ("instruction", "output"), ("instruction", "response"), ("question", "answer"), ("Q", "A"), ("질문", "답변"),
    ("질문", "대답"), ("prompt", "completion"), ("prompt", "response"), ("query", "response"), ("user", "assistant"),
    ("human", "assistant"), ("question", "chosen"), ("prompt", "chosen"), ("instruction", "chosen"),
)  # fmt: skip
_NUMBERED = re.compile(r"(HS|SS|사람문장|시스템문장|시스템응답)_?(\d+)")
_ROWS = "rows that one conversation has"
_DEEPEST = 12


@dataclass(frozen=True)
class ChatLayout(Layout):
    """All formats of conversations."""

    presets: tuple[Preset, ...] = ()

    kind = "conversations"
    missing = "no conversation"

    @property
    def name(self) -> str:
        return "chat"

    def reads(self, column: str) -> bool:
        return True

    def is_side_file(self, file_name: str) -> bool:
        return False

    def documents(self, value: Any) -> list[Any]:
        """The conversations in a value, or reasons; None for an element of a list in which there is none."""
        elements = value if isinstance(value, list) else [value]
        found: list[Packed | Broken | None] = []
        for element in elements:
            found += [conversation(turns) for turns in _talks(element, 0)] or [None]
        return found

    def describe(self, value: Any) -> str:
        keys = ", ".join(map(str, islice(value, 12))) if isinstance(value, dict) else type(value).__name__
        return f"looked for messages, conversations, dialogues, or questions with answers; found {keys}"

    def joined(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values of a file, in which rows with one turn each have become one value per conversation."""
        return joined(values, is_row)


def is_chat(value: Any) -> bool:
    """Whether there is a conversation in a value, usable or not."""
    return bool(_talks(value, 0))


def is_row(value: Any) -> bool:
    """Whether a value is one turn of a conversation, as a table has it."""
    return isinstance(value, dict) and _ROWS not in value and _turn(value) is not None and not _question(value)


def joined(values: Iterable[Any], is_row: Callable[[Any], bool]) -> Iterator[Any]:
    """Join what `is_row` accepts; rows that follow one another and have the same number belong together."""
    rows: list[Any] = []
    number: Any = None
    for value in chain.from_iterable(_elements(value, is_row) for value in values):
        if is_row(value):
            own = _first(_lower(value), _NUMBERS)
            if rows and own != number:
                yield {_ROWS: rows}
                rows = []
            rows.append(value)
            number = own
            continue
        if rows:
            yield {_ROWS: rows}
            rows = []
        yield value
    if rows:
        yield {_ROWS: rows}


def _elements(value: Any, is_row: Callable[[Any], bool]) -> list[Any]:
    return value if isinstance(value, list) and value and all(map(is_row, value)) else [value]


# ---- the formats


def _talks(value: Any, depth: int) -> list[list[Turn]]:
    """The conversations anywhere in a value."""
    if depth > _DEEPEST:
        return []
    if isinstance(value, list):
        turns = _turns(value)
        return [talk for inner in value for talk in _talks(inner, depth + 1)] if turns is None else [turns]
    if not isinstance(value, dict):
        return []
    for read in (_listed, _question, _numbered):
        turns = read(value)
        if turns is not None:
            return [turns]
    return [talk for key, inner in value.items() if key != "rejected" for talk in _talks(inner, depth + 1)]


def _turns(value: list[Any]) -> list[Turn] | None:
    """A list in which each element is a turn."""
    turns = [_turn(element) for element in value]
    return [turn for turn in turns if turn is not None] if turns and None not in turns else None


def _turn(value: Any) -> Turn | None:
    if not isinstance(value, dict):
        return None
    lower = _lower(value)
    speaker, names = _first(lower, _SPEAKERS), [key for key in _TEXTS if key in lower]
    if isinstance(speaker, dict):
        speaker = speaker.get("id") or speaker.get("name")
    if not isinstance(speaker, str | int) or not names:
        return None
    return Turn(str(speaker), as_text(lower[next((name for name in names if lower[name]), names[0])]))


def _listed(value: dict[str, Any]) -> list[Turn] | None:
    """A list of turns under one of the usual keys: turns, strings, pairs of strings, or nothing."""
    for key in (_ROWS, *_LISTS):
        listed = value.get(key)
        if not isinstance(listed, list):
            continue
        turns = _turns(listed) if listed else []
        if turns is None and all(isinstance(text, str) for text in listed):
            turns = [Turn("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(listed)]
        if turns is None and all(map(_is_pair, listed)):
            turns = _spoken(listed)
        if turns is not None:
            return _with_system(value, turns)
    return None


def _question(value: dict[str, Any]) -> list[Turn] | None:
    """A question and its answer."""
    for asked, answered in _PAIRS:
        question, answer = value.get(asked), value.get(answered)
        if isinstance(question, str) and isinstance(answer, str):
            more = value.get("input") if asked == "instruction" else None
            if isinstance(more, str) and more.strip():
                question = f"{question}\n{more}"
            history = value.get("history")
            before = _spoken(history) if isinstance(history, list) and all(map(_is_pair, history)) else []
            return _with_system(value, [*before, Turn("user", question), Turn("assistant", answer)])
    return None


def _numbered(value: dict[str, Any]) -> list[Turn] | None:
    """AI Hub's emotional dialogues: what the human (H) and the system (S) say in the rounds 1, 2, ..."""
    found = {(int(match[2]), match[1] in ("SS", "시스템문장", "시스템응답")): text
             for key, text in value.items() if (match := _NUMBERED.fullmatch(key))}  # fmt: skip
    if not found:
        return None
    return [
        Turn("assistant" if system else "user", as_text(found[number, system] or ""))
        for number, system in sorted(found)
    ]


def _with_system(value: dict[str, Any], turns: list[Turn]) -> list[Turn]:
    system = value.get("system") or value.get("system_prompt")
    return [Turn("system", system), *turns] if isinstance(system, str) else turns


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def _spoken(pairs: list[Any]) -> list[Turn]:
    return [turn for user, bot in pairs for turn in (Turn("user", user), Turn("assistant", bot))]


def _lower(value: dict[str, Any]) -> dict[str, Any]:
    return {str(key).lower(): inner for key, inner in value.items()}


def _first(value: dict[str, Any], keys: Iterable[str]) -> Any:
    return next((value[key] for key in keys if value.get(key) is not None), None)
