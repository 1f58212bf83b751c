"""The responses of OpenAI's API: what was generated -> JSON, whole or as the chunks of a stream.

`ChatForm` is that of /v1/chat/completions, `CompletionForm` that of /v1/completions. `dropped_turns` is a field of our
own in a chat: how many of the oldest turns were left out because the context is full. It is absent if none was.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kogpt.serve.answer import Piece, Token


@dataclass
class Choice:
    """An answer that has ended."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    reason: str | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens of the prompts and of the answers."""

    prompt: int
    answer: int

    @property
    def json(self) -> dict[str, int]:
        """In OpenAI's form."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.answer,
            "total_tokens": self.prompt + self.answer,
        }


class Form:
    """What both kinds of response have. `alternatives`: how many tokens to name beside each; None: no logprobs."""

    prefix, whole_name, chunk_name = "", "", ""

    def __init__(self, model: str, alternatives: int | None, *, more: dict[str, Any] | None = None) -> None:
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._head |= more or {}
        self._alternatives = alternatives

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """The response to a request without `stream`."""
        listed = [
            {
                "index": index,
                **self._content(choice.text),
                "logprobs": self._logprobs(choice.tokens),
                "finish_reason": choice.reason,
            }
            for index, choice in enumerate(choices)
        ]
        return self._head | {"object": self.whole_name, "choices": listed, "usage": usage.json}

    def chunk(self, index: int, piece: Piece, reason: str | None = None) -> dict[str, Any]:
        """New text of a choice; with its last text the reason of its end."""
        choice = {
            "index": index,
            **self._new(piece.text),
            "logprobs": self._logprobs(piece.tokens),
            "finish_reason": reason,
        }
        return self._head | {"object": self.chunk_name, "choices": [choice]}

    def opening(self, index: int) -> dict[str, Any] | None:
        """What comes before the text of a choice."""
        return None

    def usage(self, usage: Usage) -> dict[str, Any]:
        """The last chunk where `stream_options.include_usage` asks for it."""
        return self._head | {"object": self.chunk_name, "choices": [], "usage": usage.json}

    def _content(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _new(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        raise NotImplementedError


class ChatForm(Form):
    """Of /v1/chat/completions."""

    prefix, whole_name, chunk_name = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self, index: int) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._head | {"object": self.chunk_name, "choices": [choice]}

    def _content(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _new(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if self._alternatives is None:
            return None
        content = [
            _named(token.text, token.logprob) | {"top_logprobs": [_named(*other) for other in token.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class CompletionForm(Form):
    """Of /v1/completions."""

    prefix, whole_name, chunk_name = "cmpl", "text_completion", "text_completion"

    def _content(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _new(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if self._alternatives is None:
            return None
        return {
            "tokens": [_string(token.text) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{_string(text): logprob for text, logprob in token.top} for token in tokens],
            "text_offset": [token.start for token in tokens],
        }


def _named(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _string(text), "logprob": logprob, "bytes": list(text)}


def _string(text: bytes) -> str:
    """A token as text; the bytes of half a character as \\xNN."""
    return text.decode(errors="backslashreplace")
