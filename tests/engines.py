"""A DeepSpeed engine of one rank inside the test's own process: a process group that comes and goes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from kogpt.model.gpt2 import GPTConfig
from kogpt.train.deepspeed_config import EnginePlan, plan

SHAPE = GPTConfig(vocab_size=61, max_seq_len=16, n_layer=2, n_head=2, n_embd=16)


def plan_for(precision: str = "fp32", stage: int = 0, **more: Any) -> EnginePlan:
    """A plan for one rank on a CPU with bf16: 8 sequences a step in micro-batches of 2."""
    content: dict[str, Any] = {
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2}},
        **more,
    }
    if precision != "fp32":
        content[precision] = {"enabled": True}
    return plan(Path("ds.json"), content, world_size=1, device="cpu", has_bf16=True)


@contextmanager
def one_rank() -> Iterator[Any]:
    """`Ranks` of a group of one; the environment and the group are gone afterwards."""
    from deepspeed import comm

    from kogpt.train import distributed

    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        patch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
        kept = dict(os.environ)
        distributed.prepare_environment()
        try:
            yield distributed.start()
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            comm.comm.cdb = None
            os.environ.clear()
            os.environ.update(kept)


def batch(seed: int = 0, rows: int = 2, config: GPTConfig = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and targets [rows, max_seq_len]."""
    made = torch.Generator().manual_seed(seed)
    ids, targets = torch.randint(config.vocab_size, (2, rows, config.max_seq_len), generator=made)
    return ids, targets


def train_step(engine: Any, step: int, lr: float = 1e-2) -> float:
    """One step of four micro-batches; the mean loss."""
    total = 0.0
    for micro in range(engine.plan.grad_accum):
        loss = engine.loss(*batch(step * 100 + micro))
        engine.backward(loss)
        total += loss.item()
    engine.update(lr)
    return total / engine.plan.grad_accum
