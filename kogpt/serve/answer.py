"""An answer under way: steps of the batcher -> text that may be sent. In: `Step`s. Out: `Piece`s.

What is sent is certain: whole characters only, and nothing that a stop string may still turn out to begin with. A stop
string may span any number of tokens; the text ends before it. Bytes that are no UTF-8 are left out, so U+FFFD is never
sent. The tokens of a piece come along, for log-probabilities: each with the piece in which its text begins, or at the
end.

Cost: O(length of the stop strings) per token.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from kogpt.generate.engine import Step
from kogpt.tokenizer.wordpiece import StreamDecoder, Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Token:
    """A generated token: its text as bytes, the place of its text in the answer, and its log-probability.

    `top`: (bytes, log-probability) of the most probable tokens in its place.
    """

    text: bytes
    start: int
    logprob: float
    top: list[tuple[bytes, float]]


@dataclass
class Piece:
    """Text that is new, and the tokens that belong to it."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)


class Answer:
    """The text of one answer. `context`: the tokens before it whose text it continues; none for an answer in a chat."""

    def __init__(
        self, tokenizer: Tokenizer, *, context: Sequence[int] = (), stops: Sequence[str] = (), with_tokens: bool = False
    ) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._decoder = StreamDecoder(tokenizer)
        for id in context:  # whether a space follows depends on the tokens before
            self._decoder.push(id)
        self._decoder.flush()
        self._held = ""
        self._sent = 0
        self._before = next((id for id in reversed(context) if id != tokenizer.cls_id), None)
        self._waiting: list[Token] | None = [] if with_tokens else None
        self.count = 0
        """Tokens so far."""
        self.stopped = False
        """Whether a stop string has ended the answer."""

    def push(self, step: Step) -> Piece:
        """What the token adds. After a stop string nothing does."""
        if self.stopped:
            return Piece()
        self.count += 1
        start = self._sent + len(self._held)
        text = self._decoder.push(step.id)
        if self._waiting is not None:
            self._waiting.append(self._token(step, start))
            self._before = step.id
        return self._add(text)

    def flush(self) -> Piece:
        """What is left when the answer has ended; the bytes of half a character are left out."""
        if self.stopped:
            return Piece()
        piece = Piece(self._held, self._waiting or [])
        self._held, self._waiting = "", None
        return piece

    def _add(self, text: str) -> Piece:
        self._held += text.replace("\ufffd", "")
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            certain = min(found)
        else:
            certain = len(self._held) - max((_begun(self._held, stop) for stop in self._stops), default=0)
        sent, self._held = self._held[:certain], self._held[certain:]
        self._sent += len(sent)
        tokens: list[Token] = []
        if self._waiting is not None and (sent or self.stopped):
            tokens = [token for token in self._waiting if token.start < self._sent]
            self._waiting = self._waiting[len(tokens) :]
        return Piece(sent, tokens)

    def _token(self, step: Step, start: int) -> Token:
        top = [(token_bytes(self._tokenizer, id, self._before), logprob) for id, logprob in step.top]
        return Token(token_bytes(self._tokenizer, step.id, self._before), start, step.logprob or 0.0, top)


def _begun(text: str, stop: str) -> int:
    """The length of the longest end of the text that begins the stop string, but is not all of it."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def token_bytes(tokenizer: Tokenizer, id: int, before: int | None) -> bytes:
    """The UTF-8 bytes that a token adds to a text that ends with the token `before`; none for a special token."""
    decoder = StreamDecoder(tokenizer)
    if before is not None:
        decoder.push(before)
        decoder.flush()
    text = decoder.push(id)
    held = decoder.flush()
    byte = _BYTE.fullmatch(tokenizer.tokens([id])[0])
    return bytes.fromhex(byte[1]) if byte and (held or text == "\ufffd") else text.encode()
