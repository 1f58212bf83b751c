"""Many clients at once on one batcher: no answer is lost, mixed up, or cut, and memory does not grow."""

import gc
import random
import resource
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch

from kogpt.checkpoint.load import load_for_inference
from kogpt.generate.batching import Batcher, Done, QueueFull, Request
from kogpt.generate.engine import Step
from kogpt.generate.sampling import Sampling

LIMIT = 300.0
"""Seconds that no request takes."""


class Client(threading.Thread):
    """Sends requests one after another, cancels a third of them, and checks every answer against the right one."""

    def __init__(self, batcher: Batcher, wanted: list[tuple[Request, list[int]]], count: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.batcher, self.wanted, self.count = batcher, wanted, count
        self.chance = random.Random(seed)
        self.patience = random.Random(seed)  # how often it waits is no matter of the seed
        self.seen: Counter[str] = Counter()

    def run(self) -> None:
        for _ in range(self.count):
            self.seen[self._ask()] += 1

    def _ask(self) -> str:
        request, right = self.chance.choice(self.wanted)
        ids: list[int] = []
        ends: list[str] = []
        ended = threading.Event()
        cancel_at = self.chance.choice([None, None, self.chance.randrange(len(right) + 1)])

        def on_step(what: Step | Done) -> None:
            if isinstance(what, Done):
                ends.append(what.reason)
                ended.set()
                return
            ids.append(what.id)
            if len(ids) == cancel_at:
                ticket.cancel()

        while True:
            try:
                ticket = self.batcher.submit(request, on_step)
                break
            except QueueFull:
                self.seen["refused"] += 1
                threading.Event().wait(self.patience.random() / 100)
        if cancel_at == 0:
            ticket.cancel()
        if not ended.wait(LIMIT):
            return "lost"
        if len(ends) != 1:
            return "ended twice"
        if ids != right[: len(ids)]:
            return "mixed up"
        if ends == ["cancelled"]:
            return "cancelled" if cancel_at is not None and (len(ids) == cancel_at or cancel_at == 0) else "cut"
        return "whole" if ends == ["length"] and len(ids) == len(right) else "cut"


def resident() -> float:
    """MiB of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.parametrize(
    ("clients", "each"), [(20, 10), pytest.param(200, 10, marks=pytest.mark.slow)], ids=["200", "2000"]
)
def test_no_answer_is_lost_mixed_up_or_cut(clients: int, each: int, run: Path) -> None:
    """`clients` threads with `each` requests, a third of them cancelled at a random token, and a queue that overflows.

    Each prompt has its own answer, so tokens of another request would show. The requests come in two halves: after the
    first, memory is what it stays.
    """
    model = load_for_inference(run).model
    batcher = Batcher(model, places=6, queue=clients // 2)
    chance = random.Random(0)
    wanted = []
    for seed in range(40):
        ids = [chance.randrange(model.config.vocab_size) for _ in range(chance.choice([1, 5, 30, 70]))]
        tokens = chance.choice([1, 4, 12])
        sampling = Sampling(tokens, temperature=2.0, seed=seed, repetition_penalty=chance.choice([1.0, 1.2]))
        wanted.append(Request(ids, sampling, logprobs=chance.choice([None, 2])))
    answers = [(request, _alone(batcher, request)) for request in wanted]
    sizes, total = [], Counter[str]()
    for half in range(2):
        crowd = [Client(batcher, answers, each // 2, seed=1000 * half + number) for number in range(clients)]
        for client in crowd:
            client.start()
        for client in crowd:
            client.join(2 * LIMIT)
            total += client.seen
        del crowd
        gc.collect()
        sizes.append(resident())
    assert total["refused"] > 0, "the queue never was full"
    del total["refused"]
    assert set(total) == {"whole", "cancelled"}, total
    assert total.total() == clients * each
    assert total["cancelled"] > clients * each / 8
    assert (batcher.running, batcher.waiting) == (0, 0)
    batcher.close(1)
    assert sizes[1] - sizes[0] < 20, "memory grows with the requests"


def _alone(batcher: Batcher, request: Request) -> list[int]:
    ids: list[int] = []
    ended = threading.Event()

    def on_step(what: Step | Done) -> None:
        if isinstance(what, Done):
            ended.set()
        else:
            ids.append(what.id)

    batcher.submit(request, on_step)
    assert ended.wait(LIMIT)
    return ids


def test_memory_of_a_batcher_is_given_back(run: Path) -> None:
    """Closing frees the model's packed copy and the keys and values of all places."""
    before = _tensors()
    for _ in range(3):
        batcher = Batcher(load_for_inference(run).model, places=4)
        batcher.close(1)
    del batcher
    gc.collect()
    assert _tensors() <= before


def _tensors() -> int:
    gc.collect()
    return sum(torch.is_tensor(thing) for thing in gc.get_objects())
