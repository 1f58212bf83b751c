"""Measure how much saving a checkpoint delays training: steps before, at, and during a save, with a slow disk.

    python bench/save.py --depth 12 --disk-mb-per-s 100

In: a shape (depth 12 has 100M parameters with the default vocabulary). Out: a table, and with --json a file. Engine and
saver are those of launch/train.py, on random tokens. The disk is slowed down by sleeping in the writer's thread. The
goal: no step during a save takes longer than two steps without one.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from kogpt.train import distributed

distributed.prepare_environment()

from kogpt.checkpoint import writer  # noqa: E402
from kogpt.checkpoint.layout import step_folder  # noqa: E402
from kogpt.checkpoint.verify import verify  # noqa: E402
from kogpt.data.batch import Batch  # noqa: E402
from kogpt.model.gpt2 import GPTConfig  # noqa: E402
from kogpt.train import deepspeed_config  # noqa: E402
from kogpt.train.engine import TrainingEngine  # noqa: E402
from kogpt.train.saver import Order, Saver  # noqa: E402


@dataclass(frozen=True)
class Options:
    """What to measure."""

    depth: int = 12
    """Layers, 64 wide per layer."""
    vocab: int = 20_000
    """Size of the vocabulary."""
    tokens: int = 64
    """Tokens per step."""
    stage: int = 0
    """ZeRO stage."""
    steps: int = 6
    """Steps without a save, after two warm-up steps."""
    disk_mb_per_s: float = 100.0
    """Speed of the emulated disk."""
    json: Path | None = None
    """Also write the numbers to this file."""


def slow_disk(mb_per_s: float) -> None:
    """Make every write to a checkpoint take as long as on such a disk."""
    write = writer.ShardFile._write

    def slowed(self: writer.ShardFile, data: bytes | memoryview) -> None:
        started = time.perf_counter()
        write(self, data)
        time.sleep(max(0.0, len(data) / (mb_per_s * 1e6) - (time.perf_counter() - started)))

    writer.ShardFile._write = slowed  # type: ignore[method-assign]


def measure(options: Options, run: Path) -> dict[str, Any]:
    """Measure the seconds of steps, of starting a save, and of writing it."""
    ranks = distributed.start()
    content = {
        "train_batch_size": ranks.world_size,
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": options.stage},
    }
    plan = deepspeed_config.plan(
        Path("ds.json"), content, world_size=ranks.world_size, device=ranks.device.type, has_bf16=False
    )
    config = GPTConfig(
        vocab_size=options.vocab,
        max_seq_len=options.tokens,
        n_layer=options.depth,
        n_head=options.depth,
        n_embd=64 * options.depth,
    )
    engine = TrainingEngine(config, plan, ranks, 1, None)
    saver = Saver(run, ranks, "bench", shared=True)

    def step() -> float:
        started = time.perf_counter()
        ids = torch.randint(options.vocab, (1, options.tokens), device=ranks.device)
        engine.backward(engine.loss(Batch(ids, ids)), options.tokens * ranks.world_size)
        float(engine.update(1.0))
        return time.perf_counter() - started

    plain = [step() for _ in range(options.steps + 2)][2:]
    started = time.perf_counter()
    order = Order(1, {"model": config.to_dict()}, engine.counters(), better=False, keep=1, before=None)
    saver.start(order, engine.parts())
    handed_over = time.perf_counter() - started
    beside = []
    while distributed.reduce_max(ranks, saver.is_busy)[0]:
        beside.append(step())
    writing = time.perf_counter() - started
    saver.wait()
    assert (fault := verify(step_folder(run, 1))) is None, fault
    typical = statistics.median(plain)
    with_save = handed_over + (beside[0] if beside else 0.0)
    return {
        "parameters": config.parameter_count,
        "ranks": ranks.world_size,
        "step_s": typical,
        "step_s_slowest": max(plain),
        "save_hand_over_s": handed_over,
        "save_writing_s": writing,
        "steps_beside": len(beside),
        "step_beside_s": statistics.median(beside) if beside else None,
        "step_beside_s_slowest": max(beside, default=None),
        "step_with_save_s": with_save,
        "goal_met": max([with_save, *beside]) <= 2 * typical,
    }


def main(options: Options) -> None:
    """Measure, and print rank 0's table."""
    slow_disk(options.disk_mb_per_s)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    if os.environ["RANK"] == "0":
        for name, value in found.items():
            shown = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if type(value) is int else value
            print(f"{name:24} {shown}", flush=True)
        if options.json is not None:
            settings = json.loads(json.dumps(asdict(options), default=str))
            options.json.write_text(json.dumps({"options": settings, **found}, indent=1) + "\n")
    distributed.leave(0)


if __name__ == "__main__":
    main(tyro.cli(Options, args=[word for word in sys.argv[1:] if not word.startswith("--local_rank")]))
