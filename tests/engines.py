"""A DeepSpeed engine or a whole training of one rank in the test's own process, with a temporary process group."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from kogpt.data.batch import Batch
from kogpt.model.config import ModelConfig
from kogpt.model.gpt2 import GPTConfig
from kogpt.model.qwen3 import Qwen3Config
from kogpt.train import deepspeed_file
from kogpt.train.corpora import open_corpora
from kogpt.train.deepspeed_config import EnginePlan, plan
from kogpt.train.options import parse
from kogpt.train.setup import settle
from kogpt.train.stop_signal import Stop
from kogpt.train.trainer import Trainer

SHAPE = GPTConfig(vocab_size=61, max_seq_len=16, n_layer=2, n_head=2, n_embd=16)
SHAPES = {
    "gpt2": SHAPE,
    "qwen3": Qwen3Config(61, 16, 2, n_head=4, n_embd=16, n_kv_head=2, head_dim=6, n_inner=20, tied=False),
}


def plan_for(precision: str = "fp32", stage: int = 0, **more: Any) -> EnginePlan:
    """A plan for one rank on a CPU with bf16: 8 sequences a step in micro-batches of 2.

    One rank would get stage 0 whatever it asks for: the others are planned for two, each with half of 16.
    """
    content: dict[str, Any] = {
        "train_batch_size": 16 if stage else 8,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2}},
        **more,
    }
    if precision != "fp32":
        content[precision] = {"enabled": True}
    made = plan(Path("ds.json"), content, world_size=2 if stage else 1, device="cpu", has_bf16=True)
    return replace(made, global_batch=8, engine=made.engine | {"train_batch_size": 8})


@contextmanager
def one_rank() -> Iterator[Any]:
    """`Ranks` of a process group of one. Group and environment variables are removed at the end."""
    from kogpt.train import distributed

    kept = dict(os.environ)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    distributed.prepare_environment()
    found = distributed.start()
    os.environ.clear()  # otherwise processes that tests start would take this rank's place
    os.environ.update(kept)
    yield found
    dist.destroy_process_group()


def batch(seed: int = 0, rows: int = 2, config: ModelConfig = SHAPE) -> Batch:
    """Random tokens and targets [rows, max_seq_len]."""
    made = torch.Generator().manual_seed(seed)
    ids, targets = torch.randint(config.vocab_size, (2, rows, config.max_seq_len), generator=made)
    return Batch(ids, targets)


def train_step(engine: Any, step: int) -> float:
    """Make one step of four micro-batches at the peak learning rate, and return the mean loss."""
    total, targets = 0.0, engine.plan.global_batch * SHAPE.max_seq_len
    for micro in range(engine.plan.grad_accum):
        loss = engine.loss(batch(step * 100 + micro))
        engine.backward(loss, targets)
        total += loss.item()
    engine.update(1.0)
    return total / targets


class _NoStop(Stop):
    """A `Stop` without signal handlers, which would replace pytest's."""

    def __init__(self) -> None:
        self.code = 0


def train_here(line: list[str], ranks: Any) -> Trainer:
    """Run launch/train.py's command line to its end in this process, and return the trainer."""
    options = parse(line)
    path = options.run.deepspeed_config
    corpora = open_corpora(options.corpora, options.run.mix, options.run.max_repeat)
    setup = settle(options, deepspeed_file.read(path), corpora, ranks)
    made = plan(path, setup.content, world_size=1, device="cpu", has_bf16=False)
    trainer = Trainer(options, setup, made, corpora, ranks, _NoStop())
    assert trainer.train() == 0
    return trainer
