"""Conversations as the pipeline carries them: turns of speakers -> one text with marks for who speaks, or a reason.

`conversation` applies the rules for roles and returns a packed text: each message follows one of three control
characters, which no normalized text contains. To the scan, the filters, the cache, and the pool a conversation is
therefore a text like any other, and only the two stages unpack it (`placed_messages`).

The rules: named roles (user, human, assistant, gpt, ...) are taken as they are. If one of two speakers has such a name,
the other has the other role. Otherwise the first is the user and the second the assistant. Turns in a row by one
speaker are joined by a line feed, and turns without text are ignored. What the assistant says before the user, and what
nobody answers at the end, is left out. Each message is normalized (kogpt.tokenizer.normalize), and loses the white
space at its ends.
"""

import re
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from kogpt.tokenizer.chat import Message
from kogpt.tokenizer.normalize import Removed, normalize
from preprocess.streams import Broken

MARKS = {"system": "\x1c", "user": "\x1d", "assistant": "\x1e"}
_ROLES = {mark: role for role, mark in MARKS.items()}
_MARK = re.compile("[\x1c-\x1e]")

_NAMES = {
    **dict.fromkeys(("user", "human", "prompter", "사용자", "질문자", "고객", "손님"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "챗봇"), "assistant"),
    **dict.fromkeys(("상담사", "상담원", "점원"), "assistant"),
    "system": "system",
}
_MACHINES = {"tool", "function", "function_call", "function_response", "observation", "ipython", "developer"}


class Turn(NamedTuple):
    """What one speaker says: a text, or None if it is something else (a picture, a call of a tool)."""

    speaker: str
    text: str | None


class Packed(NamedTuple):
    """A conversation as one text with marks, and what normalization removed from its messages."""

    text: str
    removed: Removed


def conversation(turns: Sequence[Turn]) -> Packed | Broken:
    """The packed conversation of these turns, or the reason why they are none."""
    if any(turn.text is None for turn in turns):
        return Broken("not text", "a message is a picture, a call of a tool, or missing")
    cleaned = [(turn.speaker, *normalize(turn.text or "")) for turn in turns]
    said = [(speaker, text.strip()) for speaker, text, _ in cleaned if text.strip()]
    if not said:
        return Broken("empty conversation", "nobody says anything")
    roles = _roles([speaker for speaker, _ in said])
    if isinstance(roles, Broken):
        return roles
    joined = [
        Message(role, "\n".join(text for _, text in own))
        for role, own in groupby([(roles[speaker], text) for speaker, text in said], key=lambda pair: pair[0])
    ]
    start = 1 if joined[0].role == "system" else 0
    system, rest = joined[:start], joined[start:]
    if any(message.role == "system" for message in rest):
        return Broken("unknown role", "a system message after the first message")
    if rest and rest[0].role == "assistant":
        del rest[0]
    if rest and rest[-1].role == "user":
        del rest[-1]
    if not rest:
        return Broken("no assistant turn", f"{len(said)} turns, and nobody answers")
    removed = [own for _, _, own in cleaned]
    return Packed(
        pack([*system, *rest]), Removed(sum(own.controls for own in removed), sum(own.surrogates for own in removed))
    )


def _roles(speakers: Sequence[str]) -> dict[str, str] | Broken:
    """Speaker -> role."""
    named = {speaker: _NAMES.get(speaker.strip().lower()) for speaker in dict.fromkeys(speakers)}
    if machines := [speaker for speaker in named if speaker.strip().lower() in _MACHINES]:
        return Broken("unknown role", ", ".join(machines))
    if all(named.values()):
        return {speaker: str(role) for speaker, role in named.items()}
    people = [speaker for speaker, role in named.items() if role != "system"]
    if len(people) > 2:
        return Broken("more than two speakers", ", ".join(people[:6]))
    if named[people[0]] == "assistant" or named[people[-1]] == "user":
        people.reverse()
    return dict.fromkeys(named, "system") | dict(zip(people, ("user", "assistant"), strict=False))


def pack(conversation: Sequence[Message]) -> str:
    """Normalized messages as one text."""
    return "".join(MARKS[message.role] + message.content for message in conversation)


def placed_messages(text: str) -> list[tuple[int, Message]]:
    """(where its content begins, message) of each message of a packed text. An article is a message without a role."""
    if text[:1] not in _ROLES:
        return [(0, Message("", text))]
    starts = [match.end() for match in _MARK.finditer(text)]
    return [
        (start, Message(_ROLES[text[start - 1]], text[start : end - 1]))
        for start, end in pairwise([*starts, len(text) + 1])
    ]


def sizes(text: str) -> dict[str, int]:
    """The characters of an article; of a conversation, those without marks, and those that the assistant says."""
    messages = [message for _, message in placed_messages(text)]
    counts = {"chars": sum(len(message.content) for message in messages)}
    if messages[0].role:
        counts["learnt_chars"] = sum(len(message.content) for message in messages if message.role == "assistant")
    return counts


def as_text(content: Any) -> str | None:
    """The content of a message: a string, or a list of parts as OpenAI's API has them, if all of them are texts."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else None
