"""What stands between HTTP and the model: analysis of texts, admission, and answers under way.

In: texts and conversations. Out: token ids, and streams of the batcher's events, in the event loop.

- Texts are analyzed in threads of their own. Kkma runs without Python's lock and within a budget, so a text that is
  made to be slow delays neither the event loop nor the batcher, and long texts, the only ones that may take seconds, do
  not delay short ones. A text that has more characters than the context could hold is refused before its analysis, and
  one whose analysis takes over ANALYSIS_SECONDS gets an error.
- At most `places + queue` answers are under way; the next one is refused at once, before its analysis.
- An answer that nobody waits for is cancelled, which frees its place within one step.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

from kogpt.generate.batching import Batcher, Closed, Done, QueueFull, Request, Ticket
from kogpt.generate.engine import Step
from kogpt.generate.sampling import Sampling
from kogpt.model.decoder import Decoder
from kogpt.serve.errors import Refused, busy, stopping
from kogpt.serve.metrics import Metrics
from kogpt.tokenizer.analyzers.analysis import AnalyzerBroken
from kogpt.tokenizer.chat import Message, Prompt, PromptTooLong, prompt
from kogpt.tokenizer.codec import TextCodec

ANALYSIS_THREADS = 2
"""For short texts, and as many for long ones; up to 4 threads may share Kkma."""
LONG = 1000
"""Characters of a text that is long."""
ANALYSIS_SECONDS = 15.0
CHARACTERS_PER_TOKEN = 8
"""More than Korean text has (1.5 to 3): a text with more characters than this times the context cannot fit."""
Result = TypeVar("Result")
WARM_UP = "나는 학교에 갔다. 오늘은 비가 온다."


class Service:
    """A model that is ready to answer, with its tokenizer. `answers_chat`: whether it was taught to."""

    def __init__(
        self, model: Decoder, codec: TextCodec, *, name: str, answers_chat: bool, places: int, queue: int
    ) -> None:
        self.name, self.answers_chat, self.codec = name, answers_chat, codec
        self.tokenizer = codec.tokenizer
        self.context = model.config.max_seq_len
        self._warm = self._analyzer_broken = False
        self.metrics = Metrics()
        self.most_answers = places + queue
        self.under_way = 0
        self._batcher = Batcher(model, places=places, queue=queue)
        self._for_short, self._for_long = (
            ThreadPoolExecutor(ANALYSIS_THREADS, thread_name_prefix=f"analysis-{name}") for name in ("short", "long")
        )

    async def warm(self) -> None:
        """Start the analyzer and generate tokens, so that the first user waits for neither. Raises what fails.

        Three: the model's draft guesses none before.
        """
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(self._for_short, self.codec.encode, WARM_UP)  # takes as long as it takes
        ids = [self.tokenizer.cls_id, *text][: self.context - 1]
        async for events in self.start([Request(ids, Sampling(max_new_tokens=3))]):
            if any(event == Done("error") for _, event in events):
                raise RuntimeError("The model failed on its first tokens; the log says why.")
        self._warm = True

    @property
    def ready(self) -> bool:
        """Whether it can answer: after `warm`, and until `close` or a failure."""
        return self._warm and not self.failed

    @property
    def failed(self) -> bool:
        """Whether it answers no more, because the batcher has ended or the analyzer is broken."""
        return self._analyzer_broken or (self._warm and not self._batcher.alive)

    def close(self, seconds: float) -> None:
        """Let what is under way end for this long."""
        self._batcher.close(seconds)
        for threads in (self._for_short, self._for_long):
            threads.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def admission(self, count: int) -> Iterator[None]:
        """Room for `count` answers, or `Refused` with status 429."""
        if self.under_way + count > self.most_answers:
            raise busy()
        self.under_way += count
        self.metrics.under_way.set(self.under_way)
        try:
            yield
        finally:
            self.under_way -= count
            self.metrics.under_way.set(self.under_way)

    @property
    def most_characters(self) -> int:
        """A text with more characters cannot fit into the context."""
        return self.context * CHARACTERS_PER_TOKEN

    async def encode(self, text: str, param: str | None = None) -> list[int]:
        """The token ids of a text. Raises `Refused` for one that is too long or takes too long."""
        if len(text) > self.most_characters:
            message = f"{len(text):,} characters are more than the context of {self.context:,} tokens can hold."
            raise Refused(400, message, param=param, code="context_length_exceeded")
        return await self._in_thread(partial(self.codec.encode, text), len(text), param)

    async def chat_prompt(self, messages: Sequence[Message], limit: int) -> Prompt:
        """The prompt of a conversation, without the oldest turns if they do not fit into `limit` tokens."""

        def encode(text: str) -> list[int]:
            if len(text) > self.most_characters:
                return [self.tokenizer.unk_id] * (limit + 1)  # it does not fit: no need to analyze it
            return self.codec.encode(text)

        try:
            size = sum(len(message.content) for message in messages)
            return await self._in_thread(partial(prompt, messages, self.tokenizer, encode, limit), size, "messages")
        except PromptTooLong as error:
            raise Refused(400, f"{error}; shorten it.", param="messages", code="context_length_exceeded") from None

    async def _in_thread(self, work: Callable[[], Result], characters: int, param: str | None) -> Result:
        loop = asyncio.get_running_loop()
        threads = self._for_long if characters > LONG else self._for_short
        began = False

        def analyze() -> Result:
            nonlocal began
            began = True
            return work()

        with self.metrics.analysis.time():
            try:
                return await asyncio.wait_for(loop.run_in_executor(threads, analyze), ANALYSIS_SECONDS)
            except TimeoutError:
                if not began:
                    raise busy("it is analyzing other texts") from None
                message = f"The analysis takes more than {ANALYSIS_SECONDS:.0f} seconds; send a shorter text."
                raise Refused(400, message, param=param, code="analysis_too_slow") from None
            except AnalyzerBroken:
                self._analyzer_broken = True  # whoever watches /health can start another process
                raise

    def start(self, requests: Sequence[Request]) -> "Stream":
        """Begin to answer. Raises `Refused` with status 429 if the queue is full."""
        return Stream(self._batcher, requests)


class Stream:
    """The answers to requests while they are generated: an iterator of lists of (number of the request, event).

    A list has all the events that have come since the last one. It ends when every answer has ended.
    """

    def __init__(self, batcher: Batcher, requests: Sequence[Request]) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Step | Done]] = asyncio.Queue()
        self._open = len(requests)  # answers that have not ended
        self.on_end: Callable[[], None] = lambda: None
        """Called in the event loop when every answer has ended, whether or not somebody reads the last events."""
        self._tickets: list[Ticket] = []
        try:
            for index, request in enumerate(requests):
                self._tickets.append(batcher.submit(request, partial(self._put, index)))
        except QueueFull:
            self.cancel()
            raise busy() from None
        except Closed:
            self.cancel()
            raise stopping() from None

    def _put(self, index: int, event: Step | Done) -> None:
        with suppress(RuntimeError):  # the loop has ended before the batcher
            self._loop.call_soon_threadsafe(self._arrive, index, event)

    def _arrive(self, index: int, event: Step | Done) -> None:
        self._events.put_nowait((index, event))
        if isinstance(event, Done):
            self._open -= 1
            if not self._open:
                self.on_end()

    async def __aiter__(self) -> AsyncIterator[list[tuple[int, Step | Done]]]:
        while self._open or not self._events.empty():
            events = [await self._events.get()]
            while not self._events.empty():
                events.append(self._events.get_nowait())
            yield events

    def cancel(self, index: int | None = None) -> None:
        """Free the place of an answer, or of all; one that has ended stays as it is."""
        for ticket in self._tickets if index is None else [self._tickets[index]]:
            ticket.cancel()
