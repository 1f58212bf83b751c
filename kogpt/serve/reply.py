"""From answers under way to an HTTP response: whole, or as server-sent events. Nothing outlives its client.

`Reply` follows the stream of one request and collects every choice. If the client goes away, its places are freed. A
client that reads nothing of a stream for READING_SECONDS is taken for gone, so that no long answers pile up for it. A
stream that breaks off on the server's side ends with an event {"error": ...} and without `[DONE]`, so that no client
takes half an answer for a whole one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from kogpt.generate.engine import Step
from kogpt.serve.answer import Answer, Piece
from kogpt.serve.errors import Refused, failed, stopping
from kogpt.serve.forms import Choice, Form, Usage
from kogpt.serve.metrics import Metrics
from kogpt.serve.service import Stream

READING_SECONDS = 60.0
"""How long a write to a stream may wait for its client, once the buffers of the connection are full."""
_MEDIA = "text/event-stream"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass
class Reply:
    """The choices of a request while they are generated. `held` is closed when all have ended, or one has failed.

    So a client that reads slowly holds nothing but its connection. `ended`: whether all events have been read.
    """

    stream: Stream
    answers: Sequence[Answer]
    form: Form
    prompt_tokens: int
    metrics: Metrics
    held: ExitStack
    began: float
    ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.stream.on_end = self.held.close

    async def pieces(self) -> AsyncIterator[list[tuple[int, Piece, str | None]]]:
        """(choice, its new text, the reason of its end or None), in lists of all that came at once."""
        ended = [False] * len(self.answers)
        first = True
        async for events in self.stream:
            if first:
                self.metrics.first_token.observe(time.perf_counter() - self.began)
                first = False
            found: list[tuple[int, Piece, str | None]] = []
            for index, event in events:
                answer = self.answers[index]
                if ended[index]:
                    continue
                if isinstance(event, Step):
                    piece = answer.push(event)
                    ended[index] = answer.stopped
                    if answer.stopped:
                        self.stream.cancel(index)
                    found.append((index, piece, "stop" if answer.stopped else None))
                elif event.reason in ("stop", "length"):
                    ended[index] = True
                    found.append((index, answer.flush(), event.reason))
                else:
                    self.ended = True
                    raise failed() if event.reason == "error" else stopping()
            yield found
        self.ended = True

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(self.prompt_tokens, sum(answer.count for answer in self.answers))

    def close(self) -> None:
        """Free what is still taken."""
        self.stream.cancel()
        self.held.close()
        self.metrics.prompt_tokens.inc(self.prompt_tokens)
        self.metrics.answer_tokens.inc(self.usage.answer)
        self.metrics.duration.observe(time.perf_counter() - self.began)


async def whole(reply: Reply, request: Request) -> Response:
    """The response when every choice has ended."""
    choices = [Choice() for _ in reply.answers]

    async def collect() -> None:
        async for found in reply.pieces():
            for index, piece, reason in found:
                choices[index].text += piece.text
                choices[index].tokens += piece.tokens
                choices[index].reason = reason or choices[index].reason

    collecting, gone = asyncio.create_task(collect()), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((collecting, gone), return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            reply.metrics.cancelled.inc()
            return Response(status_code=499)  # nobody reads it
        await collecting
    finally:
        collecting.cancel()
        gone.cancel()
        reply.close()
    return Response(orjson.dumps(reply.form.whole(choices, reply.usage)), media_type="application/json")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events of a reply, which is closed whatever happens."""

    def __init__(self, reply: Reply, *, usage_at_end: bool) -> None:
        super().__init__(_events(reply, usage_at_end), media_type=_MEDIA, headers=_HEADERS)
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Message) -> None:
            async with asyncio.timeout(READING_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, in_time)
        except (TimeoutError, ClientDisconnect):
            pass  # the response is incomplete, so the server closes the connection
        finally:
            if not self._reply.ended:
                self._reply.metrics.cancelled.inc()  # nobody reads the rest
            self._reply.close()


async def _events(reply: Reply, usage_at_end: bool) -> AsyncIterator[bytes]:
    openings = [reply.form.opening(index) for index in range(len(reply.answers))]
    yield b"".join(_event(opening) for opening in openings if opening is not None)
    try:
        async for found in reply.pieces():
            chunks = [
                _event(reply.form.chunk(index, piece, reason))
                for index, piece, reason in found
                if piece.text or piece.tokens or reason
            ]
            if chunks:
                yield b"".join(chunks)
    except Refused as refused:
        yield _event(refused.body)
        return
    if usage_at_end:
        yield _event(reply.form.usage(reply.usage))
    yield b"data: [DONE]\n\n"


def _event(content: object) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"
