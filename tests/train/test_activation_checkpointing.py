"""Activation checkpointing: bit-identical losses, also with dropout, for less memory."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from allocations import Allocations
from builders import Inside
from engines import SHAPES, batch, plan_for, train_step

from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.train.activation_checkpointing import checkpoint_blocks
from kogpt.train.engine import TrainingEngine


@pytest.mark.parametrize(
    ("arch", "stage", "precision"),
    [("gpt2", 0, "fp32"), ("gpt2", 0, "bf16"), ("gpt2", 2, "bf16"), ("gpt2", 3, "fp32"), ("qwen3", 3, "bf16")],
)
def test_the_same_losses(arch: str, stage: int, precision: str, ranks: Any) -> None:
    losses = {}
    for forgetful in (False, True):
        engine = TrainingEngine(replace(SHAPES[arch], dropout=0.1), plan_for(precision, stage), ranks, 1, None)
        if forgetful:
            checkpoint_blocks(engine.module)
        torch.manual_seed(3)
        losses[forgetful] = [train_step(engine, step) for step in range(3)]
    assert losses[True] == losses[False]


def test_one_blocks_activations_at_a_time() -> None:
    config = GPTConfig(vocab_size=50, max_seq_len=128, n_layer=8, n_head=2, n_embd=64)
    peaks = {}
    for forgetful in (False, True):
        model = GPT(config)
        if forgetful:
            checkpoint_blocks(model)
        example = batch(rows=4, config=config)
        with Allocations() as found:
            model(*example).backward()
        peaks[forgetful] = found.peak
        with torch.no_grad():
            model(*example)
    assert peaks[True] < peaks[False] / 2


def test_what_is_computed_again_takes_the_same_kernels(ranks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that training chooses for attention, not what torch prefers, which on some GPUs is another one."""
    inside, seen = Inside(), list[bool]()

    def look(*_: Any) -> None:
        seen.append(inside.now)

    monkeypatch.setattr("kogpt.train.engine.fused_attention", inside)
    engine = TrainingEngine(SHAPES["qwen3"], plan_for(), ranks, 1, None)
    for block in engine.module.blocks:
        block.self_attn.register_forward_pre_hook(look)
    checkpoint_blocks(engine.module)
    train_step(engine, 0)
    assert len(seen) == 2 * 2 * 4, "twice for each of two layers, in four micro-batches"
    assert all(seen)
