"""How often a step waits for the device, counted where the host reads a tensor's value."""

from typing import Any

import pytest
import torch
from engines import SHAPE, batch, plan_for

from kogpt.train.engine import TrainingEngine
from kogpt.train.step_metrics import agree
from kogpt.train.stop_signal import Stop

FETCHES = ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "nonzero")


class OnHost(torch.Tensor):
    """A tensor that is already on the host, or computed from such tensors. Reading it costs no wait."""


class _Wish(Stop):
    """A stop without signal handlers."""

    def __init__(self) -> None:
        self.code = 0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by a name with each wait."""
    from deepspeed.accelerator import get_accelerator

    found: list[str] = []
    inside = False

    def counted(name: str, original: Any) -> Any:
        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            outermost, inside = not inside, True  # one may be made of others
            try:
                if outermost and not isinstance(tensor, OnHost):
                    found.append(name)
                result = original(tensor, *args, **kwargs)
            finally:
                inside = not outermost
            return result.clone().as_subclass(OnHost) if name == "cpu" else result

        return call

    for name in FETCHES:
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    monkeypatch.setattr(get_accelerator(), "synchronize", lambda *_: found.append("synchronize"))
    return found


@pytest.mark.parametrize(("precision", "stage"), [("fp32", 0), ("bf16", 0), ("bf16", 1), ("bf16", 2), ("bf16", 3)])
def test_none_per_micro_batch_and_at_most_two_per_step(
    precision: str, stage: int, ranks: Any, waits: list[str]
) -> None:
    engine = TrainingEngine(SHAPE, plan_for(precision, stage), ranks, 1, None)
    for step in range(3):  # the first one sets things up
        waits.clear()
        total = torch.zeros(())
        for micro in range(4):
            loss = engine.loss(batch(10 * step + micro))
            engine.backward(loss, 8 * SHAPE.max_seq_len)
            total += loss.detach()
        in_micro_batches = list(waits)
        norm = engine.update(1e-2)
        agreed = agree(ranks, _Wish(), total, norm)
        assert agreed.grad_norm > 0
    assert not in_micro_batches
    assert len(waits) <= (1 if engine.plan.stage == 0 else 2), waits
