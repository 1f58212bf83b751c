"""How often a step waits for the device, counted where the host reads a tensor's value."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

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


class _Stream:
    """A stream that notes what it waits for and when work is queued on it. The work itself is done at once."""

    notes: ClassVar[list[tuple[str, "_Stream", "_Stream | None"]]] = []

    def wait_stream(self, other: "_Stream") -> None:
        self.notes.append(("waits", self, other))


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, _Stream, _Stream | None]]:
    """Make DeepSpeed's accelerator a device with streams. Returns what happens on them."""
    from deepspeed.accelerator import get_accelerator

    accelerator, current = get_accelerator(), [_Stream()]

    @contextmanager
    def on(stream: _Stream) -> Iterator[None]:
        _Stream.notes.append(("works", stream, None))
        current.append(stream)
        yield
        current.pop()

    monkeypatch.setattr(_Stream, "notes", [])
    monkeypatch.setattr(type(accelerator), "Stream", property(lambda self: _Stream))
    monkeypatch.setattr(accelerator, "is_synchronized_device", lambda: False)
    monkeypatch.setattr(accelerator, "current_stream", lambda *_: current[-1])
    monkeypatch.setattr(accelerator, "stream", on)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    return _Stream.notes


@pytest.mark.parametrize(("precision", "stage"), [("bf16", 1), ("bf16", 2), ("fp32", 2)])
def test_none_per_micro_batch_if_the_sums_over_the_ranks_overlap(
    precision: str, stage: int, ranks: Any, waits: list[str], streams: list[Any]
) -> None:
    """The stream that computes waits for the one that sums, after its last sum, and before the sums are used."""
    from deepspeed.accelerator import get_accelerator

    zero = {"stage": stage, "overlap_comm": True, "reduce_bucket_size": 5000}
    engine = TrainingEngine(SHAPE, plan_for(precision, stage, zero_optimization=zero), ranks, 1, None)
    main, other = get_accelerator().current_stream(), engine.engine.optimizer.reduction_stream
    for micro in range(4):
        loss = engine.loss(batch(micro))
        waits.clear()
        streams.clear()
        engine.backward(loss, 8 * SHAPE.max_seq_len)
        assert not waits
        if stage == 2 or micro == 3:
            assert streams.count(("works", other, None)) > 3, "several buckets"
            assert streams[-1] == ("waits", main, other)
    assert engine.update(1e-2) > 0
    get_accelerator().synchronize()
    assert waits[-1] == "synchronize", "elsewhere, waiting is waiting"


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
