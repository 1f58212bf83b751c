"""What a training step costs with each architecture at the same depth, and with torch's RMSNorm instead of ours.

    python bench/architectures.py [--depth 4] [--rows 4] [--precision fp32] [--json FILE]

A step is forward and backward pass of one micro-batch, without the optimizer, on one thread. The contestants take turns
in one process; CPU seconds are medians, and ratios are to the first contestant. "Kept" is what autograd keeps for the
backward pass, weights and integers aside.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kogpt.model.config import ModelConfig
from kogpt.model.layers import RMSNorm
from kogpt.model.registry import ARCHITECTURES, build


@dataclass(frozen=True)
class Options:
    """The model and the micro-batch."""

    depth: int = 4
    rows: int = 4
    """Windows per micro-batch."""
    context: int = 256
    vocab: int = 20000
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: weights and computation."""
    repeats: int = 7
    """Measured steps of each contestant."""
    json: Path | None = None
    """Also write the numbers to this file."""


def main(options: Options) -> None:
    """All contestants, in turn."""
    torch.set_num_threads(1)
    ids, targets = torch.randint(options.vocab, (2, options.rows, options.context))
    shape = {"vocab_size": options.vocab, "max_seq_len": options.context}
    configs = {arch: made.config for arch, made in ARCHITECTURES.items()}
    models = {arch: config(**config.shape_of_depth(options.depth), **shape) for arch, config in configs.items()}
    ours = RMSNorm.forward
    steps: dict[str, Callable[[], Tensor]] = {}
    for name, config, norm in (*((arch, config, ours) for arch, config in models.items()), torchs(models)):
        steps[name] = step_of(config, norm, options.precision, ids, targets)
    kept = {name: kept_bytes(step) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.repeats):
        for name, step in steps.items():
            before = time.process_time()
            step().backward()
            seconds[name].append(time.process_time() - before)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    first = next(iter(medians.values()))
    table = Table("contestant", "CPU seconds", "ratio", "kept, MB")
    for name, median in medians.items():
        table.add_row(name, f"{median:.2f}", f"{median / first:.2f}", f"{kept[name] / 1e6:.0f}")
    Console().print(table)
    if options.json is not None:
        found = {name: {"cpu_s": medians[name], "kept_bytes": kept[name]} for name in steps}
        options.json.write_text(json.dumps(found, indent=1))


def torchs(models: dict[str, ModelConfig]) -> tuple[str, ModelConfig, Any]:
    """The contestant with torch's norm."""
    return (
        "qwen3, torch's rms_norm",
        models["qwen3"],
        lambda norm, x: F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps),
    )


def step_of(config: ModelConfig, norm: Any, precision: str, ids: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    """A forward pass whose norms are computed by `norm`."""
    model = build(config).to(torch.bfloat16 if precision == "bf16" else torch.float32)

    def step() -> Tensor:
        RMSNorm.forward = norm  # type: ignore[method-assign]
        return model(ids, targets)

    step.weights = {p.untyped_storage().data_ptr() for p in model.parameters()}  # type: ignore[attr-defined]
    return step


def kept_bytes(step: Any) -> int:
    """What autograd keeps of a forward pass."""
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in step.weights:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storage.nbytes() for storage in storages.values())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
