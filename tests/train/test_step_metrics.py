"""Metrics of a step, compared with arithmetic by hand."""

import math

import pytest
import torch

from kogpt.data.batch import Batch
from kogpt.eval.likelihood import held_out
from kogpt.model.loss import IGNORED
from kogpt.train.distributed import Ranks
from kogpt.train.step_metrics import agree, mfu, validate
from kogpt.train.stop_signal import Stop

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))


class _Wish(Stop):
    """A stop without signal handlers, which would replace pytest's."""

    def __init__(self, code: int) -> None:
        self.code = code


def test_mfu_is_unknown_rather_than_guessed() -> None:
    assert mfu(1000.0, 10**9, None, 4) is None
    assert mfu(1000.0, 10**9, 1e12, 4) == pytest.approx(0.25)


@pytest.mark.parametrize(("code", "agreed"), [(0, 0), (130, 130), (143, 143)])
def test_agree(code: int, agreed: int) -> None:
    found = agree(ALONE, _Wish(code), torch.tensor(2.5), torch.tensor(math.inf))
    assert (found.loss, found.grad_norm, found.stop_code) == (2.5, math.inf, agreed)
    assert 0 < found.memory_gib[0] < 100


def test_validation_is_the_mean_over_targets_not_over_batches() -> None:
    """Two rows in batches of their own: one of three targets at 1 nat, one of one target at 5."""
    text = held_out([([2, 5, 5, 5], 1), ([2, 9], 1)], max_seq_len=4)
    prices = {5: 1.0, 9: 5.0, IGNORED: 0.0}

    def token_nll(batch: Batch) -> torch.Tensor:
        return torch.tensor([[prices[target] for target in row] for row in batch.targets.tolist()])

    result = validate(token_nll, text, 1, ALONE, _Wish(0))
    assert not isinstance(result, int)
    assert result.loss == pytest.approx(2.0)
    assert result.bits_per_char == pytest.approx(8.0 / math.log(2) / 2)
    assert validate(token_nll, text, 1, ALONE, _Wish(143)) == 143
