"""One worker of the pool: the actor that runs in its own process, and what the driver knows about it.

The actor calls `setup()` once, and then the function that it returned on every item. It reports only by return values,
as a stream: before each item it sends a message if its last one is 1 s old, so that a longer silence is due to the
current item. A message holds the results so far. Where there is a `Packing`, it holds only their number, and the last
one holds all results, packed: the driver neither takes items apart nor puts results together.
"""

import atexit
import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray

BEAT_SECONDS, NAP_SECONDS = 1.0, 0.02


@dataclass(frozen=True)
class Failed:
    """The result of an item that took too long, or that twice, while it ran alone, killed its worker or raised.

    The cause is the same in every run: it contains no process id, address, or time.
    """

    cause: str
    too_slow: bool = False
    """The item may succeed on a less busy machine, so this failure must not be stored."""


@dataclass(frozen=True)
class Packed:
    """The results of a whole chunk, as its `Packing` returned them."""

    content: Any


@dataclass(frozen=True)
class NotYet:
    """Stands in the place of a chunk that is not there yet."""

    until: Any = None
    """the Ray object that it waits for, if that is known"""

    def wait(self) -> None:
        """Wait a moment, or until it is there."""
        if self.until is None:
            time.sleep(NAP_SECONDS)
        else:
            ray.wait([self.until], timeout=BEAT_SECONDS)


class Packing(Protocol):
    """How the content of a chunk is taken apart and its results are put together, in the worker."""

    def items(self, *content: Any) -> Sequence[Any]:
        """The items of a chunk, which arrives as several arguments; references to Ray objects arrive as the objects."""

    def pack(self, items: Sequence[Any], results: Sequence[Any], *content: Any) -> Any:
        """The results of a whole chunk in the form that is kept; none of them is `Failed`."""


@ray.remote(max_restarts=0, max_task_retries=0)
class Actor:
    """One worker process. It reports only by return values."""

    def place(self) -> str:
        """The first call. It returns as soon as Ray has placed the actor."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        return ray.get_runtime_context().get_node_id()

    def warm_up(self, setup: Callable[[], Callable[[Any], Any]], packing: Packing | None) -> None:
        self._function, self._packing = setup(), packing
        # End the process without teardown: JPype's exit once hung forever and left an orphan of 650 MB.
        atexit.register(os._exit, 0)

    def run(self, todo: Sequence[int] | None, *content: Any) -> Iterator[list[Any] | int | Packed]:
        """The results in order, at most one message per second. The first message is empty: the call has begun.

        `content` is one list of items, or, with a `Packing`, a whole chunk, of which the items `todo` are asked for. If
        these are all and none fails, there is one result, packed, and the messages before it are numbers of items.
        """
        yield []
        last = time.monotonic()
        whole = False
        if todo is None or self._packing is None:
            (items,) = content
        else:
            items = self._packing.items(*content)
            whole = len(todo) == len(items)
            items = [items[i] for i in todo]
        done: list[Any] = []
        for item in items:
            if time.monotonic() - last >= BEAT_SECONDS:
                yield len(done) if whole else done
                done, last = done if whole else [], time.monotonic()
            try:
                done.append(self._function(item))
            except Exception as error:
                done.append(Failed(f"it raised {type(error).__name__}"))
        if whole and not any(isinstance(result, Failed) for result in done):
            assert self._packing is not None
            yield Packed(self._packing.pack(items, done, *content))
        else:
            yield done


@dataclass
class Chunk:
    key: Hashable
    content: Any
    seconds: Sequence[float]
    """how long each item may take"""
    results: dict[int, Any] = field(default_factory=dict)
    strikes: Counter[int] = field(default_factory=Counter)
    packed: Packed | None = None


@dataclass
class Flight:
    """A call in flight: the items `todo` of a chunk. The results of the first `received` have arrived.

    The actor has the results of the first `finished`.
    """

    chunk: Chunk
    todo: list[int]
    alone: bool
    stream: Any
    limit: float
    received: int = 0
    finished: int = 0
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
