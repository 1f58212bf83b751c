"""A pool of Ray actors on every core of a cluster that survives items which crash or hang their process.

`Pool(setup, ...)` starts actors. Each calls `setup()` once, which may be slow (a JVM), and then the function that it
returned on every item. `pool.map(chunks)` takes (key, items) and yields (key, results) in any order. A result is what
the function returned, or a `Failed`. Every item gets exactly one result. Which items fail does not depend on the
number of workers or on when processes die. With a `Packing` (preprocess.worker), a chunk is a tuple, which this takes
apart into items, and the results of one without a failure are `Packed`: what it put together, in the worker.

How it works:

- The driver keeps two chunks in flight per lane (thread) of each actor and waits with `ray.wait`.
- A chunk is one streaming call. Before each item, the actor sends a message if its last one is 1 s old. A longer
  silence is therefore due to the current item.
- An actor that is silent for `hang_seconds` (plus the `seconds` of the slowest item in the chunk) is killed.
- An actor that dies is replaced. `max_restarts=0`, because a restarted actor would have lost its chunks. Once one has
  died, a warm spare works in the place of the next until the new one is ready: few runs need one, and it takes memory.
- Chunks that a dead actor had not started, and items whose results it had not sent, are sent out again. The rest of
  the chunk it was in is suspect: the last message may be lost, so nobody knows which item caused the death. Each
  suspect runs alone, on an actor that does nothing else, and only a death there counts as a strike. An exception makes
  an item suspect as well. An item with two strikes becomes `Failed`. One that is silent there for eight times its limit
  becomes a `Failed` that says `too_slow`: a clock decided that, not the item, so the caller must not keep it.
- Content that lies on other nodes, as references to Ray objects, is lost with its node. The caller makes it again
  (`renew`), and it is no item's fault.
- The chunks may say that the next one is not there yet, so that results are still taken in, and the dead replaced.

Cost: 1.2 ms of the driver's CPU per chunk, and 0.01 ms per item without a packing (bench/pool.py).
"""

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayError, RayTaskError

from kogpt.common.errors import UserError
from preprocess.cluster import MIB, one_line
from preprocess.places import Places
from preprocess.worker import BEAT_SECONDS, NAP_SECONDS, Actor, Chunk, Failed, Flight, NotYet, Packed, Packing, Slot

WARM_UP_SECONDS = 120.0
_STRIKES = 2
_PATIENCE = 8.0
"""Factor for the time limit of a suspect that runs alone, so that a busy machine does not decide what fails."""
_LOST = "it ended or hung its worker"
_TOO_SLOW = "it took too long"


@dataclass
class Stats:
    """What has happened so far."""

    workers: int = 0
    """cores at work now"""
    deaths: int = 0
    failed: int = 0


class Pool:
    """Actors for one kind of work. As a context manager, it ends them on exit."""

    def __init__(
        self,
        setup: Callable[[], Callable[[Any], Any]],
        *,
        workers: int | None = None,
        threads: int = 1,
        memory_mib: int = 300,
        spare: bool = False,
        hang_seconds: float = 60.0,
        seconds: Callable[[Any], Sequence[float]] = lambda items: [0.0] * len(items),
        packing: Packing | None = None,
        renew: Callable[[Any], Any] | None = None,
    ):
        """Use `workers` cores, or all of the cluster if None, including nodes that join later.

        `threads` is the largest number of cores per actor, `memory_mib` what an actor needs. `seconds` says how long
        each item of a chunk may take, beside `hang_seconds`. `renew` makes the content of a chunk, by its key, again.
        """
        self.stats = Stats()
        self._setup = ray.put(setup)
        self._places, self._memory_mib = Places(workers, threads, memory_mib), memory_mib
        self._use_spare, self._hang, self._seconds, self._packing = spare, hang_seconds, seconds, packing
        self._renew = renew
        self._slots: list[Slot] = []
        self._again: deque[tuple[Chunk, list[int]]] = deque()
        self._suspects: deque[tuple[Chunk, int]] = deque()
        self._complete: deque[Chunk] = deque()
        self._starved: NotYet | None = None  # what the next chunk waits for
        self._failed_starts = 0

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots.clear()

    def map(self, chunks: Iterable[tuple[Hashable, Any] | NotYet]) -> Iterator[tuple[Hashable, list[Any] | Packed]]:
        """The results of each chunk as soon as it is complete. Chunks are read as workers become free."""
        source = (own if isinstance(own, NotYet) else Chunk(*own, self._seconds(own[1])) for own in chunks)
        exhausted = False
        while True:
            self._look_after_workers()
            exhausted = self._hand_out(source, exhausted)
            flying = any(slot.flights for slot in self._slots)
            if exhausted and not flying and not self._again and not self._suspects:
                return
            self._listen()
            self._kill_silent()
            while self._complete:
                chunk = self._complete.popleft()
                yield chunk.key, chunk.packed or [chunk.results[i] for i in range(len(chunk.seconds))]

    # ---- workers

    def wait(self) -> None:
        """Return when every worker is ready, including a spare. Only measurements need this."""
        while not self._complete_crew():
            self._look_after_workers()
            self._listen()
            self._kill_silent()
        self._look_after_workers()  # counts those that have become ready

    @property
    def _needs_spare(self) -> bool:
        return self._use_spare and self.stats.deaths > 0

    def _complete_crew(self) -> bool:
        crew = len(self._slots) - self._needs_spare
        return 0 < self._places.count == crew and all(slot.ready for slot in self._slots)

    def _look_after_workers(self) -> None:
        self._places.look(any(slot.ready for slot in self._slots))
        regular = [slot for slot in self._slots if not slot.spare]
        for _ in range(self._places.count - len(regular)):
            self._start(spare=False)
        unplaced = [slot for slot in regular if slot.pending is not None and not slot.node]
        for slot in unplaced[: max(0, len(regular) - self._places.count)]:
            self._end(slot)
        if self._needs_spare and len(regular) == len(self._slots) and regular and all(s.ready for s in regular):
            self._start(spare=True)
        self.stats.workers = sum(slot.ready and not slot.spare for slot in self._slots) * self._places.threads

    def _start(self, spare: bool) -> None:
        # A spare gets no core of its own, because it works only while another worker is missing.
        actor = Actor.options(  # type: ignore[attr-defined]
            num_cpus=0 if spare else self._places.threads,
            memory=self._memory_mib * MIB,
            max_concurrency=self._places.threads,
        ).remote()
        self._slots.append(Slot(actor, spare, pending=actor.place.remote()))

    def _end(self, slot: Slot) -> None:
        ray.kill(slot.actor)
        self._slots.remove(slot)

    def _started(self, slot: Slot) -> None:
        """Handle the result or failure of `place` or `warm_up`."""
        try:
            answer = ray.get(slot.pending)
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, UserError) else error from None
        except RayError as error:
            self._start_failed(slot, one_line(error))
            return
        slot.heard = time.monotonic()
        if slot.node:
            slot.pending = None
            self._failed_starts = 0
        else:
            slot.node = answer
            slot.pending = slot.actor.warm_up.remote(self._setup, self._packing)

    def _start_failed(self, slot: Slot, cause: str) -> None:
        self._end(slot)
        self.stats.deaths += 1
        self._failed_starts += 1
        if self._failed_starts > 3 + 2 * self._places.count:
            raise UserError(f"the workers die while they start ({cause}); see Ray's logs on node {slot.node or '?'}")

    # ---- work out

    def _hand_out(self, source: Iterator[Chunk | NotYet], exhausted: bool) -> bool:
        self._starved = None
        working = [slot for slot in self._slots if slot.ready and not slot.spare]
        if len(working) < self._places.count:
            working += [slot for slot in self._slots if slot.ready and slot.spare]
        # Every actor gets a first chunk before any gets a second one.
        for depth in range(2 * self._places.threads):
            for slot in working:
                if len(slot.flights) > depth or any(flight.alone for flight in slot.flights):
                    continue
                if self._suspects:
                    if not slot.flights:  # wait until the actor has nothing else to do
                        chunk, i = self._suspects.popleft()
                        self._send(slot, chunk, [i], alone=True)
                elif self._again:
                    chunk, todo = self._again.popleft()
                    self._send(slot, chunk, todo, alone=False)
                elif not exhausted and self._starved is None:
                    new = next(source, None)
                    if new is None:
                        exhausted = True
                    elif isinstance(new, NotYet):
                        self._starved = new
                    else:
                        self._send(slot, new, list(range(len(new.seconds))), alone=False)
        return exhausted

    def _send(self, slot: Slot, chunk: Chunk, todo: list[int], alone: bool) -> None:
        limit = (self._hang + max((chunk.seconds[i] for i in todo), default=0.0)) * (_PATIENCE if alone else 1.0)
        arguments = (None, [chunk.content[i] for i in todo]) if self._packing is None else (todo, *chunk.content)
        stream = slot.actor.run.options(num_returns="streaming").remote(*arguments)
        if not slot.flights:
            slot.heard = time.monotonic()
        slot.flights.append(Flight(chunk, todo, alone, stream, limit))

    # ---- results in

    def _listen(self) -> None:
        """Wait for messages, at most one beat, and handle all that have arrived."""
        by_stream: dict[Any, tuple[Slot, Flight | None]] = {
            slot.pending: (slot, None) for slot in self._slots if slot.pending is not None
        }
        for slot in self._slots:
            by_stream.update({flight.stream: (slot, flight) for flight in slot.flights})
        until = self._starved and self._starved.until
        nap = NAP_SECONDS if self._starved and until is None else BEAT_SECONDS
        streams = [*by_stream, *([] if until is None else [until])]
        if not streams:
            time.sleep(nap)
            return
        ready, _ = ray.wait(streams, num_returns=1, timeout=nap)
        if ready and len(streams) > 1:
            ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0)
        for stream in ready:
            if stream is until:
                continue
            slot, flight = by_stream[stream]
            if slot not in self._slots:
                continue  # ended by an earlier message
            if flight is None:
                self._started(slot)
            else:
                self._hear(slot, flight)

    def _hear(self, slot: Slot, flight: Flight) -> None:
        """Handle one message of a flight, or the end of its stream."""
        try:
            message = ray.get(next(flight.stream), timeout=self._hang)
        except StopIteration:
            slot.flights.remove(flight)
            return
        except RayTaskError as error:  # the call itself failed, for example because a result cannot be sent
            cause = error.cause
            if isinstance(cause, RayError) and not (self._renew and isinstance(cause, ObjectLostError)):
                raise cause from None  # Ray's trouble, such as a full disk, and no text's fault
            slot.flights.remove(flight)
            if isinstance(cause, RayError):
                assert self._renew is not None
                flight.chunk.content = self._renew(flight.chunk.key)
                self._again.appendleft((flight.chunk, flight.rest))
                return
            self._suspect(flight, f"it raised {type(error.cause).__name__}")
            return
        except GetTimeoutError:
            self._died(slot, _TOO_SLOW)
            return
        except RayError:
            self._died(slot, _LOST)
            return
        slot.heard = flight.heard = time.monotonic()
        if isinstance(message, Packed):
            flight.received = len(flight.todo)
            flight.chunk.packed = message
            self._complete.append(flight.chunk)
            return
        if isinstance(message, int):
            flight.finished = message
            return
        for result in message:
            i = flight.todo[flight.received]
            flight.received += 1
            if not isinstance(result, Failed):
                self._settle(flight.chunk, i, result)
            elif flight.alone:
                self._strike(flight.chunk, i, result.cause)
            else:
                self._suspects.append((flight.chunk, i))

    def _kill_silent(self) -> None:
        now = time.monotonic()
        for slot in list(self._slots):
            begun = [flight for flight in slot.flights if flight.heard is not None and flight.rest]
            if slot.pending is not None:
                if slot.node and now - slot.heard > WARM_UP_SECONDS:
                    self._start_failed(slot, f"not ready after {WARM_UP_SECONDS:.0f} s")
                continue
            hung = any(now - (flight.heard or now) > flight.limit for flight in begun)
            never_began = bool(slot.flights) and not begun and now - slot.heard > self._hang
            if hung or never_began:
                self._died(slot, _TOO_SLOW)

    def _died(self, slot: Slot, cause: str) -> None:
        """End an actor, mark the items it may have died of as suspect, and send the others out again."""
        self._end(slot)
        self.stats.deaths += 1
        open_flights = [flight for flight in slot.flights if flight.rest]
        begun = [flight for flight in open_flights if flight.heard is not None] or open_flights[: self._places.threads]
        for flight in open_flights:
            if flight in begun:
                self._suspect(flight, cause)
            else:
                self._again.appendleft((flight.chunk, flight.rest))

    def _suspect(self, flight: Flight, cause: str) -> None:
        if lost := flight.todo[flight.received : flight.finished]:  # they are good, but their results are gone
            self._again.appendleft((flight.chunk, lost))
        for i in flight.todo[max(flight.received, flight.finished) :]:
            if flight.alone:
                self._strike(flight.chunk, i, cause)
            else:
                self._suspects.append((flight.chunk, i))

    def _strike(self, chunk: Chunk, i: int, cause: str) -> None:
        chunk.strikes[i] += 1
        if chunk.strikes[i] < _STRIKES and cause != _TOO_SLOW:
            self._suspects.append((chunk, i))
        else:
            self._settle(chunk, i, Failed(cause, too_slow=cause == _TOO_SLOW))
            self.stats.failed += 1

    def _settle(self, chunk: Chunk, i: int, result: Any) -> None:
        chunk.results[i] = result
        if len(chunk.results) == len(chunk.seconds):
            self._complete.append(chunk)
