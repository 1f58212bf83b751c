"""The law falls with size and data, repeated text is worth less, and its coefficients are those of the runs."""

import json
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainings import PROJECT, script

from kogpt.plan.law import ERROR, FITS, FLOOR, Fit, expect, useful_chars

AMOUNTS = st.floats(1e4, 1e13)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """bench/law.py."""
    first = sys.path[0]
    module = script("law", "bench")
    sys.path[0] = first
    return module


@given(parameters=st.integers(10**4, 10**12), chars=AMOUNTS, epoch=AMOUNTS, more=st.floats(1, 1e3))
def test_more_is_never_worse(parameters: int, chars: float, epoch: float, more: float) -> None:
    bits = expect(parameters, chars, epoch)
    assert bits.low < bits.expected < bits.high
    assert expect(round(parameters * more), chars, epoch).expected <= bits.expected + 1e-9
    assert expect(parameters, chars * more, epoch).expected <= bits.expected + 1e-9


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
    near, far = expect(3 * 10**6, 2e6, 1e9), expect(10**9, 3e10, 1e12)
    assert (far.high - far.low) / far.expected > (near.high - near.low) / near.expected


def test_the_coefficients_are_fitted_to_the_runs_of_the_table(bench: ModuleType) -> None:
    runs = [json.loads(line) for line in (PROJECT / "bench" / "law_runs.jsonl").read_text().splitlines()]
    held_back = bench.held_back(runs)
    assert bench.fits(runs) == FITS
    assert pytest.approx((sum(error**2 for _, error in held_back) / len(runs)) ** 0.5, abs=1e-4) == ERROR


def test_the_fit_finds_a_law_again(bench: ModuleType) -> None:
    law = Fit(FLOOR, 0.5, 1.5)
    runs = [
        {"parameters": n, "tokens": d, "epoch": 10**9, "chars_per_token": 2.0, "bits_per_char": law.bits(n, 2 * d)}
        for n in (10**6, 3 * 10**6, 10**7)
        for d in (10**6, 4 * 10**6, 10**7)
    ]
    for floor in (FLOOR, None):
        found = bench.fit(runs, floor)
        assert (found.floor, found.size, found.data) == pytest.approx((law.floor, law.size, law.data), rel=1e-3)


def test_the_size_exponent_is_the_published_one() -> None:
    """Ten times the parameters save 10^-0.34 of what the size costs, at every size."""
    costs = [FITS[0].bits(n, 1e30) - FLOOR for n in (1e6, 1e7, 1e9)]
    assert costs[1] / costs[0] == pytest.approx(10**-0.34, rel=1e-3)
    assert costs[2] / costs[0] == pytest.approx(1000**-0.34, rel=1e-2)


def test_far_from_the_runs_the_floor_is_unknown() -> None:
    far = expect(10**9, 3e10, 1e12)
    assert far.low < FLOOR
    assert far.high > FITS[-1].floor
