"""What does Muon's update cost beside the training step? One block of a GPT-2, in turn with its update.

    python bench/muon.py [--width 768] [--tokens 1024] [--json F.json]

In: the width, the tokens that go through the block. Out: the time of the block's forward and backward pass, that of
orthogonalizing its matrices by each method, and the tokens per step from which the update takes at most 5 % of a step.
The head and the embedding of a whole model take time in a step, but none in the update: there the share is smaller. The
update is divided among the ranks as the step is, so the share does not depend on their number.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from kogpt.model.gpt2 import Block, GPTConfig
from kogpt.optim.muon import cost, orthogonalize

CONTEXT = 256


@dataclass(frozen=True)
class Options:
    """What to measure."""

    width: int = 768
    """Width of the block; 768 is that of GPT-2 small."""
    tokens: int = 1024
    """Tokens that go through it, in rows of 256."""
    rounds: int = 3
    """Measurements of each, in turn."""
    json: Path | None = None
    """Also write the numbers to this file."""


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The time of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Measure in fp32 and bf16, and print the table."""
    options = tyro.cli(Options, description=__doc__)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width = options.width
    config = GPTConfig(vocab_size=1, max_seq_len=CONTEXT, n_layer=1, n_head=width // 64, n_embd=width)
    matrices = [(4, width, width), (1, 4 * width, width), (1, width, 4 * width)]
    flops = sum(count * cost(rows, columns) for count, rows, columns in matrices)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        block = Block(config).to(device, dtype)
        x = torch.randn(options.tokens // CONTEXT, CONTEXT, width, device=device, dtype=dtype, requires_grad=True)
        gradients = [torch.randn(shape, device=device, dtype=dtype) for shape in matrices]
        work: dict[str, Callable[[], object]] = {
            "block": lambda block=block, x=x: block(x).sum().backward(),  # type: ignore[misc]
            "standard": lambda gradients=gradients: [orthogonalize(g) for g in gradients],  # type: ignore[misc]
            "gram": lambda gradients=gradients: [orthogonalize(g, "gram") for g in gradients],  # type: ignore[misc]
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(options.rounds + 1):
            for name, call in work.items():
                times[name].append(seconds(call, device))
        step = statistics.median(times["block"][1:])
        for method in ("standard", "gram"):
            update = statistics.median(times[method][1:])
            enough = update / 0.05 / (step / options.tokens)
            found.append({"dtype": str(dtype)[6:], "method": method, "block_s": step, "update_s": update})
            print(
                f"{str(dtype)[6:]:9} {method:9} block {1e3 * step:8.1f} ms, update {1e3 * update:8.1f} ms, at most 5 % "
                f"from {enough:9,.0f} tokens a step"
            )
    print(f"update by standard: {flops / 1e9:.1f} GFLOP a block")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
