"""Packed weights give the model's logits, and to the bit the same ones for a row alone and among others."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from builders import SHAPES, scattered, shape_of
from torch.utils._python_dispatch import TorchDispatchMode

from kogpt.model.kv_cache import KVCache
from kogpt.model.packed import packed

WIDTHS: dict[str, dict[str, Any]] = {"gpt2": {}, "qwen3": {"head_dim": 16, "n_inner": 64}}
"""Multiples of 32, as those of all models that anybody trains."""

pytestmark = pytest.mark.parametrize("arch", SHAPES)


def test_packed_logits_are_those_of_the_model(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = scattered(shape_of(arch))
    size = sum(weight.nbytes for weight in model.parameters())
    monkeypatch.setattr("kogpt.model.packed.LEAST_FOR_A_DRAFT", size + 1)
    assert packed(model).draft is None  # it would cost memory and gain nothing
    monkeypatch.setattr("kogpt.model.packed.LEAST_FOR_A_DRAFT", size)
    fast = packed(model)
    ids = torch.randint(301, (3, 32))
    with torch.no_grad():
        assert (fast(ids, cache=KVCache(model.config, 3)) - model(ids)).abs().max() < 1e-5
    shared = {parameter.data_ptr() for parameter in model.parameters()}
    assert {parameter.data_ptr() for parameter in fast.parameters()} <= shared
    if fast.draft is not None:
        with torch.no_grad():
            difference = (fast.draft(ids, cache=KVCache(model.config, 3)) - model(ids)).abs().max()
        assert 1e-5 < difference < 0.1
        assert {parameter.data_ptr() for parameter in fast.draft.parameters()} <= shared
    assert packed(model.bfloat16()) is model


@torch.no_grad()
def test_a_packed_step_takes_fewer_calls(arch: str) -> None:
    """In a small model each call into torch costs as much as the arithmetic in it."""

    class Calls(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += 1
            return call(*args, **(kwargs or {}))

    model = scattered(shape_of(arch))
    counts = []
    for each in (packed(model), model):
        with Calls() as calls:
            each(torch.tensor([[5]]), cache=KVCache(model.config, 1))
        counts.append(calls.count)
    assert counts[0] < 0.7 * counts[1]


@torch.no_grad()
def test_a_row_of_a_step_is_the_same_to_the_bit_alone_and_among_others(arch: str) -> None:
    """Rows of different lengths, in 1 to 20 rows at every place of the batch, with one thread and with two."""
    model = packed(scattered(replace(shape_of(arch), **WIDTHS[arch])))
    cache = KVCache(model.config, 20)
    lengths = torch.randint(1, 32, (20,)).tolist()
    for place, length in enumerate(lengths):
        cache.rows = [place]
        model(torch.randint(301, (1, length)), cache=cache)
    ids = torch.randint(301, (20, 1))

    def step(rows: list[int]) -> torch.Tensor:
        cache.rows, cache.lengths = rows, list(lengths)
        return model(ids[rows], cache=cache)[:, 0]

    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            alone = torch.cat([step([row]) for row in range(20)])
            for size in range(2, 21):
                rows = torch.randperm(20)[:size].tolist()
                assert torch.equal(step(rows), alone[rows]), (count, size)
    finally:
        torch.set_num_threads(threads)
