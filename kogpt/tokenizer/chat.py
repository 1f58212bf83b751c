"""Conversations <-> tokens: who speaks is a token that no text can produce, and every message is analyzed on its own.

    ([SYSTEM] s [END])? ([USER] u [END] [ASSISTANT] a [END])*       within [CLS] ... [SEP], as an article

`render` makes the tokens that a model is trained on, and `prompt` those that it is asked with: the same for the same
messages. White space and control characters around a message are no part of it. The role tokens belong to the
vocabulary (`Tokenizer.roles`, `Tokenizer.end_id`), and no text matches them, whatever it contains.

Only the assistant's words and the [END] after them are learnt: a model that learns the user's as well talks to itself.
Cost: that of `encode`, the analysis included, once per message that is used.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kogpt.common.errors import UserError
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import Tokenizer

ROLES = ("system", "user", "assistant")


class Message(NamedTuple):
    """What one side says: its role ("system", "user", or "assistant") and a text."""

    role: str
    content: str


class Prompt(NamedTuple):
    """The tokens to continue, and how many of the oldest turns were left out so that they fit."""

    ids: list[int]
    dropped_turns: int


class PromptTooLong(UserError):
    """The newest turn does not fit, even alone."""


def render(
    messages: Sequence[Message], tokenizer: Tokenizer, encode: Callable[[str], list[int]]
) -> tuple[list[int], list[bool]]:
    """(token ids, whether each is learnt) of a conversation, without [CLS] and [SEP].

    `encode` returns the ids of a text, as `TextCodec.encode` does. Raises UserError for a vocabulary without role
    tokens, ValueError for an unknown role.
    """
    ids = [i for message in messages for i in _message(message, tokenizer, encode)]
    return ids, learnt_flags(ids, tokenizer)


def learnt_flags(ids: Iterable[int], tokenizer: Tokenizer) -> list[bool]:
    """Which tokens of a rendered conversation are learnt: those after [ASSISTANT] up to and with its [END]."""
    roles = _roles(tokenizer)
    starts, speaking, learnt = {*roles.values()}, False, list[bool]()
    for i in ids:
        learnt.append(speaking and i not in starts)
        if i in starts or i == tokenizer.end_id:
            speaking = i == roles["assistant"]
    return learnt


def parse(ids: Iterable[int], tokenizer: Tokenizer) -> list[Message]:
    """The messages of a rendered conversation: the inverse of `render`, as far as the spacing is lossless."""
    roles = {i: role for role, i in _roles(tokenizer).items()}
    messages: list[Message] = []
    role, own = "", list[int]()
    for i in ids:
        if i in roles:
            role, own = roles[i], []
        elif i == tokenizer.end_id:
            messages.append(Message(role, tokenizer.decode(own)))
        else:
            own.append(i)
    return messages


def prompt(messages: Sequence[Message], tokenizer: Tokenizer, encode: Callable[[str], list[int]], limit: int) -> Prompt:
    """`[CLS]`, the messages, and `[ASSISTANT]`: at most `limit` tokens, which the model continues with an answer.

    If they are more, the oldest whole turns (a user's message and what follows it) are left out; the system message
    stays. Messages that do not fit are not analyzed. Raises `PromptTooLong` if the newest turn alone does not fit.
    """
    roles = _roles(tokenizer)
    system, turns = _turns(messages)
    head = [tokenizer.cls_id] + [i for message in system for i in _message(message, tokenizer, encode)]
    room = limit - len(head) - 1
    kept: list[list[int]] = []
    for turn in reversed(turns):
        ids: list[int] = []
        for message in reversed(turn):
            ids = _message(message, tokenizer, encode) + ids
            if len(ids) > room:
                break
        if len(ids) > room:
            break
        kept.append(ids)
        room -= len(ids)
    if room < 0 or (turns and not kept):
        raise PromptTooLong(f"the last message, with the system message, has more than the {limit} tokens that fit")
    tail = [i for ids in reversed(kept) for i in ids]
    return Prompt([*head, *tail, roles["assistant"]], len(turns) - len(kept))


def _turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """(the system messages at the start, the turns): a turn begins with a user's message that follows another role."""
    start = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    turns: list[list[Message]] = []
    for i, message in enumerate(messages[start:], start):
        if not turns or (message.role == "user" and messages[i - 1].role != "user"):
            turns.append([])
        turns[-1].append(message)
    return list(messages[:start]), turns


def _message(message: Message, tokenizer: Tokenizer, encode: Callable[[str], list[int]]) -> list[int]:
    roles = _roles(tokenizer)
    if message.role not in roles:
        raise ValueError(f"role {message.role!r} is unknown; a message is from one of {', '.join(ROLES)}")
    return [roles[message.role], *encode(normalize(message.content)[0].strip()), tokenizer.end_id]


def _roles(tokenizer: Tokenizer) -> dict[str, int]:
    if tokenizer.roles is None:
        raise UserError("this vocabulary has no role tokens, so its model cannot tell who speaks; fine-tune it first")
    return tokenizer.roles
