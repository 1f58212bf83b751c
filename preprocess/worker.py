"""One worker of the pool: the actor that runs in its own process, and what the driver knows about it.

The actor calls `setup()` once, and then the function that it returned on every item. It reports only by return values,
as a stream: before each item it sends its results so far if its last message is 1 s old, so that a longer silence is
due to the current item.
"""

import atexit
import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

BEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Failed:
    """The result of an item that took too long, or that twice, while it ran alone, killed its worker or raised.

    The cause is the same in every run: it contains no process id, address, or time.
    """

    cause: str
    too_slow: bool = False
    """The item may succeed on a less busy machine, so this failure must not be stored."""


@ray.remote(max_restarts=0, max_task_retries=0)
class Actor:
    """One worker process. It reports only by return values."""

    def place(self) -> str:
        """The first call. It returns as soon as Ray has placed the actor."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        return ray.get_runtime_context().get_node_id()

    def warm_up(self, setup: Callable[[], Callable[[Any], Any]]) -> None:
        self._function = setup()
        # End the process without teardown: JPype's exit once hung forever and left an orphan of 650 MB.
        atexit.register(os._exit, 0)

    def run(self, items: Sequence[Any]) -> Iterator[list[Any]]:
        """The results in order, at most one message per second. The first message is empty: the call has begun."""
        done: list[Any] = []
        yield done
        last = time.monotonic()
        for item in items:
            if time.monotonic() - last >= BEAT_SECONDS:
                yield done
                done, last = [], time.monotonic()
            try:
                done.append(self._function(item))
            except Exception as error:
                done.append(Failed(f"it raised {type(error).__name__}"))
        yield done


@dataclass
class Chunk:
    key: Hashable
    items: Sequence[Any]
    results: dict[int, Any] = field(default_factory=dict)
    strikes: Counter[int] = field(default_factory=Counter)


@dataclass
class Flight:
    """A call in flight: the items `todo` of a chunk. The results of the first `received` have arrived."""

    chunk: Chunk
    todo: list[int]
    alone: bool
    stream: Any
    limit: float
    received: int = 0
    heard: float | None = None

    @property
    def rest(self) -> list[int]:
        return self.todo[self.received :]


@dataclass
class Slot:
    """An actor and its work."""

    actor: Any
    spare: bool
    pending: Any
    """The awaited call of `place` or `warm_up`; None once the actor is ready."""
    node: str = ""
    heard: float = 0.0
    flights: list[Flight] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return self.pending is None
