"""The pool with workers that are made to die: the same results with any number of workers, and only bad items fail."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import ray
from ray.exceptions import ObjectLostError

from kogpt.common.errors import UserError
from preprocess import places, pool
from preprocess.cluster import connect, leave
from preprocess.pool import Pool
from preprocess.worker import Failed, NotYet, Packed

KILLERS = {17: "exit", 50: "kill", 90: "hang", 91: "raise", 92: "segfault", 140: "unsendable"}
ITEMS: list[Any] = [KILLERS.get(i, i) for i in range(160)]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect("local", 2)
    yield
    leave()


def setup_killable() -> Callable[[], Callable[[Any], Any]]:
    """Work that doubles an item, or does what a killer's name says. Local, so that it is sent by value."""

    def setup() -> Callable[[Any], Any]:
        import ctypes
        import os
        import signal
        import threading
        import time

        def work(item: Any) -> Any:
            if item == "exit":
                os._exit(3)
            if item == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if item == "hang":
                time.sleep(1000)
            if item == "raise":
                raise ValueError(f"no {time.time()}")
            if item == "segfault":
                ctypes.string_at(0)
            if item == "unsendable":
                return threading.Lock()
            time.sleep(0.002)
            return 2 * item

        return work

    return setup


def chunked(items: list[Any], size: int = 16) -> Iterator[tuple[int, list[Any]]]:
    for start in range(0, len(items), size):
        yield start, items[start : start + size]


def run(items: list[Any], hang_seconds: float = 2, **options: Any) -> tuple[list[Any], pool.Stats]:
    """All results in order of the items, and what happened."""
    with Pool(setup_killable(), hang_seconds=hang_seconds, **options) as workers:
        found = list(workers.map(chunked(items)))
    keys = [key for key, _ in found]
    assert len(set(keys)) == len(keys)
    return [result for _, results in sorted(found) for result in results], workers.stats


LOST = "it ended or hung its worker"
FAILED = {
    "raise": Failed("it raised ValueError"),
    "unsendable": Failed("it raised TypeError"),
    "hang": Failed("it took too long", too_slow=True),
}
EXPECTED = [2 * item if isinstance(item, int) else FAILED.get(item, Failed(LOST)) for item in ITEMS]


def test_only_the_guilty_fail() -> None:
    results, stats = run(ITEMS, workers=2, spare=True)
    assert results == EXPECTED
    assert stats.failed == len(KILLERS)
    assert stats.deaths >= 2 * 3 + 1  # each killer twice alone, what hangs once


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (2, 2)], ids=["one", "threads"])
def test_results_do_not_depend_on_the_workers(workers: int, threads: int) -> None:
    results, _ = run(ITEMS[:64], workers=workers, threads=threads)
    assert results == EXPECTED[:64]


class Sum:
    """Chunks are two lists; good ones come back as the sum of their results."""

    def items(self, *content: list[Any]) -> list[Any]:
        return [item for part in content for item in part]

    def pack(self, items: Sequence[Any], results: Sequence[Any], *content: list[Any]) -> int:
        return sum(results)


def of_two(content: tuple[list[Any], list[Any]]) -> list[float]:
    return [0.0] * sum(map(len, content))


def test_workers_pack_the_results_of_chunks_in_which_nothing_fails() -> None:
    """Without the one that hangs: its time limit would be too short for the others on a busy machine."""
    known = [(item, result) for item, result in zip(ITEMS, EXPECTED, strict=True) if item != "hang"]
    with Pool(setup_killable(), workers=2, packing=Sum(), seconds=of_two) as workers:
        found = dict(workers.map((key, (items[:3], items[3:])) for key, items in chunked([item for item, _ in known])))
    for key, results in chunked([result for _, result in known]):
        whole = not any(isinstance(result, Failed) for result in results)
        assert found[key] == (Packed(sum(results)) if whole else results)


def test_what_a_dead_worker_had_finished_is_no_suspect() -> None:
    """It holds the results of a whole chunk until the end, and loses them."""

    def setup() -> Callable[[Any], Any]:
        import os
        import time

        def work(item: Any) -> Any:
            time.sleep(0.3)
            if item == "exit":
                os._exit(3)
            return item

        return work

    suspects: list[int] = []

    class Watching(Pool):
        def _strike(self, chunk: Any, i: int, cause: str) -> None:
            suspects.append(i)
            super()._strike(chunk, i, cause)

        def _send(self, slot: Any, chunk: Any, todo: list[int], alone: bool) -> None:
            suspects.extend(todo if alone else ())
            super()._send(slot, chunk, todo, alone)

    with Watching(setup, workers=1, packing=Sum(), seconds=of_two) as workers:
        ((_, results),) = workers.map([("k", ([1, 2, 3, 4, 5, "exit"], [7]))])
    assert results == [1, 2, 3, 4, 5, Failed(LOST), 7]
    assert not {0, 1} & set(suspects)


def test_without_killers_nothing_dies() -> None:
    results, stats = run(list(range(100)), hang_seconds=60, workers=2)
    assert results == [2 * i for i in range(100)]
    assert (stats.deaths, stats.failed) == (0, 0)


def test_wait_returns_when_everybody_works_and_a_death_brings_a_warm_spare() -> None:
    def setup() -> Callable[[Any], Any]:
        import os
        import time

        time.sleep(1)

        def work(item: Any) -> int:
            if item == "die":
                os._exit(1)
            time.sleep(0.1)
            return os.getpid()

        return work

    def spares() -> int:
        return sum(slot.spare for slot in workers._slots)

    with Pool(setup, workers=2, spare=True) as workers:
        workers.wait()
        assert workers.stats.workers == 2
        crew = [slot.actor for slot in workers._slots]
        pids = {pid for _, found in workers.map(chunked([0] * 16, 1)) for pid in found}
        assert len(pids) == 2
        assert [slot.actor for slot in workers._slots] == crew  # nobody starts now
        assert spares() == 0
        list(workers.map(chunked(["die"], 1)))
        workers.wait()
        assert workers.stats.workers == 2
        assert spares() == 1


def test_worker_killed_from_outside_costs_nothing() -> None:
    def setup() -> Callable[[Any], Any]:
        import os
        import time

        def work(item: int) -> tuple[int, int]:
            time.sleep(0.05)
            return item, os.getpid()

        return work

    killed: set[int] = set()
    results = {}
    with Pool(setup, workers=2) as workers:
        for _, found in workers.map(chunked(list(range(120)), 4)):
            assert isinstance(found, list)
            results.update(dict(found))
            if len(killed) < 3 and len(results) > 30 * len(killed):
                victim = found[0][1]
                if victim not in killed:
                    killed.add(victim)
                    os.kill(victim, 9)
    assert sorted(results) == list(range(120))
    assert workers.stats.failed == 0
    assert workers.stats.deaths == len(killed) == 3


def test_slow_items_are_not_silent_ones() -> None:
    def setup() -> Callable[[Any], Any]:
        import time

        return lambda seconds: time.sleep(seconds)

    # A chunk that takes longer than the limit, and an item that is allowed to.
    with Pool(setup, workers=1, hang_seconds=5, seconds=list) as workers:
        assert list(workers.map([("many", [1.0] * 8), ("long", [8.0])])) == [("many", [None] * 8), ("long", [None])]
    assert workers.stats.deaths == 0


def test_an_item_that_is_slow_on_a_busy_machine_gets_its_time_alone() -> None:
    def setup() -> Callable[[Any], Any]:
        import time

        return lambda seconds: time.sleep(seconds)

    with Pool(setup, workers=1, hang_seconds=4) as workers:
        assert list(workers.map([("slow", [8.0])])) == [("slow", [None])]
    assert (workers.stats.deaths, workers.stats.failed) == (1, 0)


def test_chunks_are_taken_as_workers_become_free() -> None:
    taken = 0

    def endless() -> Iterator[tuple[int, list[int]]]:
        nonlocal taken
        while True:
            taken += 1
            yield taken, [1]

    with Pool(setup_killable(), workers=1) as workers:
        for n, _ in enumerate(workers.map(endless()), 1):
            assert taken <= n + 4
            if n == 50:
                break


def test_results_come_while_the_next_chunk_is_not_there() -> None:
    """Neither does a worker that dies in the meantime wait for it."""
    given = 0

    def slow() -> Iterator[Any]:
        nonlocal given
        yield "first", [1, "exit", 3]
        while given < 1:  # for ever, if nobody takes the result of the first
            yield NotYet(None)
        gate = ray.put(1)
        yield NotYet(gate)
        yield "second", [4]

    with Pool(setup_killable(), workers=1, hang_seconds=2) as workers:
        for key, results in workers.map(slow()):
            given += 1
            assert results == {"first": [2, Failed(LOST), 6], "second": [8]}[str(key)]
    assert given == 2


def test_content_that_is_lost_with_its_node_is_made_again() -> None:
    @ray.remote
    def of_a_dead_node() -> list[int]:
        raise ObjectLostError("00", None, "")

    renewed: list[Any] = []

    def renew(key: Any) -> tuple[list[int], list[int]]:
        renewed.append(key)
        return [1], [2, 3]

    with Pool(setup_killable(), workers=1, packing=Sum(), seconds=lambda _: [0.0] * 3, renew=renew) as workers:
        assert list(workers.map([("k", ([1], of_a_dead_node.remote()))])) == [("k", Packed(12))]
    assert renewed == ["k"]
    assert workers.stats.deaths == 0


def test_mistake_in_the_setup_is_the_callers() -> None:
    def setup() -> Callable[[Any], Any]:
        from kogpt.common.errors import UserError

        raise UserError("there is no Java")

    with pytest.raises(UserError, match="there is no Java"), Pool(setup, workers=1) as workers:
        list(workers.map([("k", [1])]))


def test_workers_that_die_while_they_start_are_given_up() -> None:
    def setup() -> Callable[[Any], Any]:
        import os

        os._exit(1)

    with pytest.raises(UserError, match="the workers die while they start"), Pool(setup, workers=1) as workers:
        list(workers.map([("k", [1])]))


def test_cluster_that_can_never_hold_a_worker_is_an_error_within_30_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert places.UNPLACED_SECONDS <= 20
    monkeypatch.setattr(places, "UNPLACED_SECONDS", 5)
    began = time.monotonic()
    with (
        pytest.raises(UserError, match=r"no node .* needs 1 CPU and 1000000 MiB of memory \(the nodes have \d+ CPU"),
        Pool(setup_killable(), memory_mib=10**6) as workers,
    ):
        list(workers.map([("k", [1])]))
    assert time.monotonic() - began < 30


def test_all_cores_are_used_by_default() -> None:
    with Pool(setup_killable()) as workers:
        workers.wait()  # one worker alone may finish these texts before another has started
        assert len(list(workers.map(chunked(list(range(400)))))) == 25
    assert workers.stats.workers == int(ray.cluster_resources()["CPU"])
