"""Mixtures: every source has its share of any stretch of the training, whoever reads it and wherever it resumes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt.data.mixture import Mixture
from kogpt.data.sampler import epoch_order

recipes = st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 1)), min_size=1, max_size=5)


def _mixture(recipe: list[tuple[int, float]], seed: int = 1, max_repeat: int | None = None) -> Mixture:
    sizes, shares = zip(*recipe, strict=True)
    return Mixture(sizes, shares, seed=seed, max_repeat=max_repeat)


@given(recipes, st.integers(0, 2**40), st.integers(0, 10**11), st.integers(1, 2000))
def test_any_stretch_has_the_shares(recipe: list[tuple[int, float]], seed: int, first: int, count: int) -> None:
    mixture = _mixture(recipe, seed=seed)
    sources = mixture.places(np.arange(first, first + count)).sources
    for source, share in enumerate(mixture.shares):
        assert abs((sources == source).sum() - share * count) < len(recipe)


def test_a_thousand_steps_have_the_shares_to_a_thousandth() -> None:
    mixture = Mixture([700, 400, 90], [0.6, 0.3, 0.1], seed=3)
    for first in range(0, 10**6, 123_457):
        sources = mixture.places(np.arange(first, first + 1000 * 8)).sources
        assert np.bincount(sources) / len(sources) == pytest.approx([0.6, 0.3, 0.1], abs=1e-3)


@given(st.sets(st.integers(1, 999), min_size=1, max_size=5), st.integers(0, 1000), st.integers(0, 10**9))
def test_shares_of_three_digits_are_exact_in_any_thousand_windows(cuts: set[int], seed: int, first: int) -> None:
    """So a step may have a single window."""
    thousandths = np.diff([0, *sorted(cuts), 1000]).tolist()
    mixture = Mixture([50] * len(thousandths), [part / 1000 for part in thousandths], seed=seed)
    sources = mixture.places(np.arange(first, first + 1000)).sources
    assert np.bincount(sources, minlength=len(thousandths)).tolist() == thousandths


@given(recipes, st.integers(0, 1000))
def test_each_source_runs_through_its_epochs_without_gaps(recipe: list[tuple[int, float]], seed: int) -> None:
    mixture = _mixture(recipe, seed=seed)
    places = mixture.places(np.arange(600))
    for source, (size, _) in enumerate(recipe):
        own = places.windows[places.sources == source]
        order = np.concatenate([epoch_order(size, seed, epoch, source) for epoch in range(-(-600 // size))])
        assert own.tolist() == order[: len(own)].tolist()


@given(recipes, st.integers(0, 5000), st.integers(1, 40), st.none() | st.integers(1, 5))
def test_where_one_begins_to_read_does_not_matter(
    recipe: list[tuple[int, float]], first: int, count: int, repeat: int | None
) -> None:
    mixture = _mixture(recipe, max_repeat=repeat)
    first = min(first, (mixture.samples or 10**9) - 1)
    whole = mixture.places(np.arange(first + 1))
    part = mixture.places(np.arange(max(0, first + 1 - count), first + 1)[::-1])
    for all_of_it, some in zip(whole, part, strict=True):
        assert all_of_it[::-1][:count].tolist() == some.tolist()


def test_one_source_has_the_order_of_a_training_without_a_mixture() -> None:
    for seed in (1, 2**63 - 1):
        places = Mixture([50], [1.0], seed=seed).places(np.arange(100).reshape(4, 25))
        random = [np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))) for epoch in (0, 1)]
        assert places.windows.ravel().tolist() == [*random[0].permutation(50), *random[1].permutation(50)]
        assert not places.sources.any()


@given(recipes, st.integers(1, 4), st.integers(0, 1000))
def test_nothing_is_read_more_often_than_allowed(recipe: list[tuple[int, float]], repeat: int, seed: int) -> None:
    mixture = _mixture(recipe, seed=seed, max_repeat=repeat)
    assert mixture.samples == repeat * sum(size for size, _ in recipe)
    places = mixture.places(np.arange(mixture.samples))
    for source, (size, _) in enumerate(recipe):
        assert np.bincount(places.windows[places.sources == source], minlength=size).tolist() == [repeat] * size
    ends = [sample for _, sample in mixture.used_up()]
    assert ends == sorted(ends)
    assert sorted(source for source, _ in mixture.used_up()) == list(range(len(recipe)))
    # Until a source is used up, it has its share; then the others divide it.
    for begin, end in pairwise([0, *sorted({*ends})]):
        left = [s for s, sample in mixture.used_up() if sample > begin]
        sources = places.sources[begin:end]
        for source in left:
            share = mixture.shares[source] / sum(mixture.shares[other] for other in left)
            assert abs((sources == source).sum() - share * (end - begin)) < len(recipe)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="without a window"):
        Mixture([5, 0], [1, 1], seed=0)
    with pytest.raises(ValueError, match="shares above 0"):
        Mixture([5, 5], [1, 0], seed=0)
