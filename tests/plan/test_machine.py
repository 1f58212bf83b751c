"""The speed of a machine: a line through measured points, named GPUs, and a measurement."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kogpt.common.errors import UserError
from kogpt.model.qwen3 import Qwen3Config
from kogpt.plan.machine import GPUS, line, named, token_seconds


@given(overhead=st.floats(0, 1e-3), speed=st.floats(1e9, 1e15))
def test_the_line_finds_overhead_and_speed(overhead: float, speed: float) -> None:
    points = [(flops, overhead + flops / speed) for flops in (1e7, 3e7, 2e8)]
    found = line(points)
    for flops, spent in points:
        assert found[0] + flops / found[1] == pytest.approx(spent, rel=1e-3)


@given(st.lists(st.tuples(st.floats(1e6, 1e12), st.floats(1e-9, 1e-1)), min_size=1, max_size=4))
def test_noise_gives_no_negative_times(points: list[tuple[float, float]]) -> None:
    overhead, speed = line(points)
    assert overhead >= 0
    assert speed > 0


@pytest.mark.parametrize("name", GPUS)
def test_every_named_gpu_has_a_peak_and_memory(name: str) -> None:
    one, eight = named(name, 1, 0.4), named(name, 8, 0.2)
    assert eight.seconds(1e9) == pytest.approx(one.seconds(1e9) / 4)
    assert 10**10 < one.memory < 10**12
    assert named(name.lower(), 1, 0.4) == one


def test_an_unknown_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="--gpu H1000 is unknown; give one of T4, "):
        named("H1000", 1, 0.4)


def test_a_larger_model_takes_longer() -> None:
    small, large = (
        token_seconds(
            Qwen3Config(500, 32, **Qwen3Config.shape_of_depth(depth)),
            0.1,
            torch.device("cpu"),
            "fp32",
            time.process_time,
        )
        for depth in (1, 3)
    )
    assert 0 < small < large
