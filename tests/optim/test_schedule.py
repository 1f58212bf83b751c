"""Properties that every learning-rate schedule must have, for all settings."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt.optim.schedule import learning_rate, warmup_length


@st.composite
def settings(draw):
    total = draw(st.integers(1, 400))
    warmup = draw(st.integers(0, total))
    return {
        "schedule": draw(st.sampled_from(["cosine", "wsd"])),
        "peak": draw(st.floats(1e-6, 1.0)),
        "total_steps": total,
        "warmup_steps": warmup,
        "decay_steps": draw(st.integers(0, total - warmup)),
        "final_ratio": draw(st.floats(0.0, 1.0)),
    }


def rates(s, extra=0):
    return [learning_rate(step, **s) for step in range(s["total_steps"] + extra)]


@given(settings())
def test_rises_to_the_peak_then_never_rises(s):
    values = rates(s, extra=5)
    w = s["warmup_steps"]
    assert all(a < b for a, b in pairwise(values[:w]))
    assert all(a >= b for a, b in pairwise(values[w:]))
    assert all(0.0 <= v <= s["peak"] * (1 + 1e-12) for v in values)
    if w:
        assert values[0] == pytest.approx(s["peak"] / w)
        assert values[w - 1] == s["peak"]


@given(settings())
def test_ends_at_the_final_rate_and_stays(s):
    values = rates(s, extra=5)
    decays = s["total_steps"] - s["warmup_steps"] if s["schedule"] == "cosine" else s["decay_steps"]
    final = s["peak"] * (s["final_ratio"] if decays else 1.0)
    assert values[s["total_steps"] - 1] == pytest.approx(final, abs=1e-12)
    assert values[s["total_steps"] :] == pytest.approx([final] * 5, abs=1e-12)


@given(settings(), st.integers(1, 500))
def test_wsd_before_its_decay_does_not_depend_on_the_length(s, longer):
    s["schedule"] = "wsd"
    before = s["total_steps"] - s["decay_steps"]
    lengthened = {**s, "total_steps": s["total_steps"] + longer}
    assert rates(s)[:before] == rates(lengthened)[:before]
    assert all(v == s["peak"] for v in rates(s)[s["warmup_steps"] : before])


def test_cosine_is_half_way_down_in_the_middle():
    s: dict[str, Any] = {"schedule": "cosine", "peak": 1.0, "total_steps": 110, "warmup_steps": 10, "final_ratio": 0.1}
    assert learning_rate(59, **s) == pytest.approx(0.55)
    assert learning_rate(34, **s) > 0.775 + 0.05  # above the straight line before the middle
    assert learning_rate(84, **s) < 0.325 - 0.05  # and below it after


def test_wsd_decays_in_a_straight_line():
    s: dict[str, Any] = {"schedule": "wsd", "peak": 1.0, "total_steps": 100, "decay_steps": 4, "final_ratio": 0.0}
    assert [learning_rate(step, **s) for step in range(94, 100)] == [1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_warm_up_is_neither_entered_again_nor_kept_too_long() -> None:
    assert warmup_length(0.05, 8000) == 400
    assert warmup_length(0.05, 80_000, begun=400) == 400
    assert warmup_length(0.05, 300, begun=400) == 15
