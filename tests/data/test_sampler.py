"""The order of windows: a permutation per epoch, the same everywhere."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt.data.sampler import _kept_orders, epoch_order, windows_for_step


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 50))
def test_an_epoch_is_a_permutation(n, seed, epoch):
    assert sorted(epoch_order(n, seed, epoch)) == list(range(n))


def test_epochs_and_seeds_differ_and_processes_agree():
    one, two, other = epoch_order(1000, 1, 0), epoch_order(1000, 1, 1), epoch_order(1000, 2, 0)
    assert (one != two).mean() > 0.9
    assert (one != other).mean() > 0.9
    code = "from kogpt.data.sampler import epoch_order; print(epoch_order(1000, 1, 0)[:20].tolist())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(one[:20].tolist())


@given(st.integers(1, 40), st.integers(0, 200), st.sampled_from([(1, 12), (2, 6), (3, 4), (4, 3), (12, 1)]), st.data())
def test_the_global_batch_does_not_depend_on_the_world_size(n, consumed, split, data):
    world, per_rank = split
    micro = data.draw(st.sampled_from([d for d in range(1, per_rank + 1) if per_rank % d == 0]))
    seen = []
    for rank in range(world):
        samples = windows_for_step(
            n,
            seed=7,
            consumed_samples=consumed,
            micro_batch=micro,
            grad_accum=per_rank // micro,
            rank=rank,
            world_size=world,
        )
        assert samples.shape == (per_rank // micro, micro)
        seen += samples.ravel().tolist()
    expected = [divmod(s, n) for s in range(consumed, consumed + 12)]  # a batch may hold several epochs
    assert sorted(seen) == sorted(int(epoch_order(n, 7, epoch)[place]) for epoch, place in expected)


def test_the_orders_of_many_sources_are_kept():
    orders = [[_kept_orders(50, 3, source)(epoch) for epoch in (0, 1)] for source in range(40)]
    for source, kept in enumerate(orders):
        assert all(_kept_orders(50, 3, source)(epoch) is order for epoch, order in enumerate(kept))
    for epoch in range(9):
        _kept_orders(50, 3, 0)(epoch)
    assert _kept_orders(50, 3, 0)(0) is not orders[0][0], "no more than two of a source, which may be large"


def test_an_epoch_sees_each_window_once():
    n, batch = 50, 8
    windows = np.concatenate(
        [
            windows_for_step(
                n, seed=0, consumed_samples=done, micro_batch=batch, grad_accum=1, rank=0, world_size=1
            ).ravel()
            for done in range(0, 8 * n, batch)
        ]
    )
    for epoch in range(8):
        assert sorted(windows[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="no window"):
        windows_for_step(0, seed=0, consumed_samples=0, micro_batch=1, grad_accum=1, rank=0, world_size=1)
    with pytest.raises(ValueError, match="rank 2"):
        windows_for_step(5, seed=0, consumed_samples=0, micro_batch=1, grad_accum=1, rank=2, world_size=2)
