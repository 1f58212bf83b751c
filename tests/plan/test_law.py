"""The law falls with size and data, repeated text is worth less, and its coefficients are those of the runs."""

import json
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainings import PROJECT, script

from kogpt.plan.law import BALANCED, ERROR, FITS, FLOOR, Fit, expect, useful_chars

AMOUNTS = st.floats(1e4, 1e13)
DEPTHS = st.integers(1, 80)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """bench/law.py."""
    first = sys.path[0]
    module = script("law", "bench")
    sys.path[0] = first
    return module


@given(depth=DEPTHS, parameters=st.integers(10**4, 10**12), chars=AMOUNTS, epoch=AMOUNTS, more=st.floats(1, 1e3))
def test_more_is_never_worse(depth: int, parameters: int, chars: float, epoch: float, more: float) -> None:
    bits = expect(depth, parameters, chars, epoch)
    assert bits.low < bits.expected < bits.high
    assert expect(depth, round(parameters * more), chars, epoch).expected <= bits.expected + 1e-9
    assert expect(depth, parameters, chars * more, epoch).expected <= bits.expected + 1e-9


@given(chars=AMOUNTS, epoch=AMOUNTS)
def test_repeated_text_is_worth_less_than_new_text(chars: float, epoch: float) -> None:
    useful = useful_chars(chars, epoch)
    assert useful <= chars * (1 + 1e-9)
    assert useful >= min(chars, epoch) * (1 - 1e-9)
    if chars <= epoch:
        assert useful == chars


def test_four_epochs_are_almost_as_good_as_new_text() -> None:
    assert 0.9 < useful_chars(4e6, 1e6) / 4e6 < 1


def test_the_uncertainty_grows_away_from_the_runs() -> None:
    near, far = expect(3, 3 * 10**6, 2e6, 1e9), expect(24, 10**9, 3e10, 1e12)
    assert (far.high - far.low) / far.expected > (near.high - near.low) / near.expected


def test_the_coefficients_are_fitted_to_the_runs_of_the_table(bench: ModuleType) -> None:
    """And each of those that are fitted lies within 3 % of the law of the others."""
    runs = [json.loads(line) for line in (PROJECT / "bench" / "law_runs.jsonl").read_text().splitlines()]
    others = bench.held_back(runs)
    errors = [abs(error) for run, (_, error) in zip(runs, others, strict=True) if bench.fitted(run)]
    assert bench.fits(runs, others) == FITS
    assert pytest.approx((sum(error**2 for error in errors) / len(errors)) ** 0.5, abs=1e-4) == ERROR
    assert max(errors) <= 0.03


@pytest.mark.parametrize("floors", [(FLOOR,), (0.5, FLOOR, 2.0)])
def test_the_fit_finds_a_law_again(bench: ModuleType, floors: tuple[float, ...]) -> None:
    law = Fit(FLOOR, 1.25, 0.4, 0.3, 1.25)
    runs: list[dict[str, Any]] = [
        {"depth": depth, "parameters": n, "tokens": d, "bits_per_char": law.bits(depth, n, 2 * d)}
        for depth, n in ((2, 10**6), (3, 10**6), (4, 3 * 10**6), (5, 10**7))
        for d in (10**7, 4 * 10**7, 10**8)
    ]
    runs.append({**runs[-1], "tokens": runs[-1]["parameters"] - 1, "bits_per_char": 9.0})
    assert bench.fit([{"epoch": 10**9, "chars_per_token": 2.0, **run} for run in runs], floors) == law


@pytest.mark.parametrize("fit", FITS)
def test_chinchilla_is_balanced(fit: Fit) -> None:
    """With the compute of BALANCED, a larger model that reads less is worse, and a smaller one that reads more, too."""
    parameters, chars = BALANCED
    best = fit.bits(80, parameters, chars)
    assert all(fit.bits(80, parameters * factor, chars / factor) > best for factor in (0.1, 0.9, 1.1, 10.0))


def test_far_from_the_runs_the_floor_is_unknown() -> None:
    far = expect(60, 10**10, 3e11, 1e13)
    assert far.low < FLOOR
    assert far.high > FITS[-1].floor
