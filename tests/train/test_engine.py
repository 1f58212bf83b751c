"""The memory estimate before the start: what cannot fit is refused with what would."""

from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from kogpt.common.errors import UserError
from kogpt.model.gpt2 import GPTConfig
from kogpt.train.deepspeed_config import plan
from kogpt.train.distributed import Ranks
from kogpt.train.engine import check_memory, estimate

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))
PLAN = plan(
    Path("ds.json"),
    {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 64, "bf16": {"enabled": True}},
    world_size=1,
    device="cpu",
    has_bf16=True,
)
SMALL = GPTConfig(vocab_size=20000, max_seq_len=1024, n_layer=12, n_head=12, n_embd=768)


def _with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    class Memory:
        available = free

    monkeypatch.setattr(psutil, "virtual_memory", Memory)


def test_what_fits_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    need = estimate(SMALL, PLAN, 1)
    _with_free(monkeypatch, need.total)
    assert check_memory(SMALL, PLAN, ALONE) == need


def test_a_smaller_micro_batch_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = estimate(SMALL, replace(PLAN, micro_batch=16), 1)
    _with_free(monkeypatch, fits.total)
    with pytest.raises(UserError, match=r'"train_micro_batch_size_per_gpu" 16 in ds.json would fit') as caught:
        check_memory(SMALL, PLAN, ALONE)
    assert "optimizer 1." in str(caught.value)


def test_a_smaller_model_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_free(monkeypatch, 10**6)
    with pytest.raises(UserError, match="choose a smaller --preset or --depth, or more ranks"):
        check_memory(SMALL, PLAN, ALONE)
