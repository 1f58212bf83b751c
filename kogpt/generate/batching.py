"""Requests that come and go while others run: continuous batching, in a thread that owns the model.

In: requests, from any thread. Out: their tokens, one by one, through a callback. At most `places` run together, and
`queue` more wait their turn, first come, first served. Between two steps of the engine (kogpt.generate.engine) those
that ended or were cancelled leave, and the next ones take their places.

An error ends the request that causes it. A step that fails is tried again for each request alone, so that the others
go on. If all fail, and so does a token that was never asked for, the model is broken (a GPU computes nothing more after
some errors), and the thread ends. Every accepted request gets exactly one `Done`, whatever happens.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kogpt.generate.engine import Engine, Row, Step
from kogpt.generate.sampling import Sampling
from kogpt.model.decoder import Decoder
from kogpt.model.packed import packed

log = logging.getLogger(__name__)

Reason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Request:
    """What to continue, and how. `sampling.max_new_tokens` bounds the tokens, and `sampling.seed` is that of this one.

    A token of `stop_ids` ends the request, and is not given out. With `logprobs`, each `Step` has the log-probability
    of its token and so many of the most probable ones (0: none).
    """

    ids: Sequence[int]
    sampling: Sampling
    stop_ids: Sequence[int] = ()
    logprobs: int | None = None


class Done(NamedTuple):
    """The end of a request: a stop token, max_new_tokens, `Ticket.cancel` (or `Batcher.close`), or an error."""

    reason: Reason


OnStep = Callable[[Step | Done], None]
"""Called in the batcher's thread for each token, then once with `Done`. It must return soon: all requests wait for it.
If it raises, its request ends."""


class QueueFull(Exception):
    """As many requests as may are waiting already."""


class Closed(Exception):
    """The batcher takes no more requests."""


class Ticket:
    """An accepted request."""

    def __init__(self, request: Request, on_step: OnStep) -> None:
        self.request = request
        self.on_step = on_step
        self.cancelled = False
        self.made = 0  # the number of tokens given out

    def cancel(self) -> None:
        """End the request before the next step. From any thread, at any time; after its end it does nothing."""
        self.cancelled = True


class Batcher:
    """The thread. Close it at the end: it holds the model, and memory for the keys and values of all places."""

    def __init__(self, model: Decoder, *, places: int = 8, queue: int = 64) -> None:
        self.places, self.queue = places, queue
        self._engine = Engine(packed(model), places)
        self._waiting: deque[Ticket] = deque()
        self._running: dict[Row, Ticket] = {}
        self._changed = threading.Condition()
        self._deadline: float | None = None  # set by `close`
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._thread.is_alive() and self._deadline is None

    @property
    def running(self) -> int:
        """The number of requests that have a place."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a place."""
        return len(self._waiting)

    def submit(self, request: Request, on_step: OnStep) -> Ticket:
        """Accept a request. Returns at once.

        Raises `QueueFull`, `Closed`, or `ValueError` for a prompt without tokens or with one outside the vocabulary.
        """
        self._engine.check(request.ids)
        with self._changed:
            if not self.alive:
                raise Closed("the batcher is closed")
            if self.running + self.waiting >= self.places + self.queue:
                raise QueueFull(f"{self.running} requests are running and {self.waiting} are waiting")
            ticket = Ticket(request, on_step)
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def close(self, seconds: float) -> None:
        """Take no more requests, and let the accepted ones end. Those that need more than `seconds` are cancelled."""
        with self._changed:
            self._deadline = time.monotonic() + seconds
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        reason: Reason = "error"
        try:
            while self._has_work():
                self._admit()
                for row, step in self._step().items():
                    self._give(row, step)
            reason = "cancelled"
        finally:
            with self._changed:  # no `submit` can be between its check and its append
                self._deadline = time.monotonic()
            for row in list(self._running):
                self._end(row, reason)
            while self._waiting:
                self._tell(self._waiting.popleft(), Done(reason))

    def _has_work(self) -> bool:
        """Wait for requests; False when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._running or self._deadline is not None)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                return False
            return bool(self._waiting or self._running)

    def _admit(self) -> None:
        """Remove the cancelled requests, and give the free places to those that wait."""
        for row, ticket in list(self._running.items()):
            if ticket.cancelled:
                self._end(row, "cancelled")
        with self._changed:  # `submit` appends from other threads
            cancelled = [ticket for ticket in self._waiting if ticket.cancelled]
            for ticket in cancelled:
                self._waiting.remove(ticket)
        for ticket in cancelled:
            self._tell(ticket, Done("cancelled"))
        while self._waiting and self._engine.free:
            request = self._waiting[0].request
            try:
                row = self._engine.add(request.ids, request.sampling, logprobs=request.logprobs)
            except Exception:
                log.exception("A request failed.")
                self._tell(self._waiting.popleft(), Done("error"))
            else:
                self._running[row] = self._waiting.popleft()

    def _step(self) -> dict[Row, Step]:
        """A step of all; if it fails, of each alone, so that only those end that fail. Raises if all would."""
        try:
            return self._engine.step()
        except Exception:
            log.exception("A step of generation failed; its requests are tried one by one.")
        steps: dict[Row, Step] = {}
        for row in list(self._running):
            try:
                steps |= self._engine.step([row])
            except Exception:
                log.exception("A request failed.")
                self._end(row, "error")
        if not self._running:
            probe = self._engine.add([0], Sampling(max_new_tokens=1, greedy=True))
            self._engine.step([probe])
            self._engine.remove(probe)
        return steps

    def _give(self, row: Row, step: Step) -> None:
        ticket = self._running[row]
        if ticket.cancelled:
            self._end(row, "cancelled")
        elif step.id in ticket.request.stop_ids:
            self._end(row, "stop")
        elif not self._tell(ticket, step):
            self._end(row, "error")
        else:
            ticket.made += 1
            if ticket.made >= ticket.request.sampling.max_new_tokens:
                self._end(row, "length")

    def _end(self, row: Row, reason: Reason) -> None:
        """Free the place first, so that whoever hears of the end can submit the next request."""
        self._engine.remove(row)
        self._tell(self._running.pop(row), Done(reason))

    def _tell(self, ticket: Ticket, what: Step | Done) -> bool:
        """Whether the callback took it."""
        try:
            ticket.on_step(what)
        except Exception:
            log.exception("The callback of a request raised an exception, so the request ends.")
            return False
        return True
