"""Our loss in chunks against torch's own (torch 2.13) and the loss over all logits: time and memory of the head.

    python bench/loss.py [--rows 4096] [--width 256] [--vocab 20000] [--json FILE]

Forward and backward. Contestants: ours (kogpt.model.loss); torch.nn.functional.linear_cross_entropy with its automatic
chunk ("torch") and with chunks of our size ("torch, our chunk"); cross_entropy of all logits at once ("whole").

Each case runs in a process of its own, on one thread: CPU seconds (median of `repeats`, after one warm-up that also
compiles) and the peak of resident memory above what was there before, in steps after the warm-up.
"""

import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from kogpt.model.loss import CHUNK_LOGITS, linear_cross_entropy


@dataclass(frozen=True)
class Options:
    """The head's shape."""

    rows: int = 4096
    """Positions whose next token is predicted: micro-batch times context."""
    width: int = 256
    """Width of the model."""
    vocab: int = 20000
    """Pieces."""
    repeats: int = 3
    """Measured passes."""
    losses: tuple[str, ...] = ("ours", "torch", "torch, our chunk", "whole")
    """Contestants."""
    json: Path | None = None
    """Also write the numbers to this file."""


def main(options: Options) -> None:
    """All cases."""
    table = Table("precision", "mode", "loss", "CPU seconds", "peak memory added, MB")
    found = []
    for precision, compiled, loss in product(("fp32", "bf16"), (False, True), options.losses):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, megabytes = pool.submit(measure, options, precision, compiled, loss).result()
        mode = "compiled" if compiled else "eager"
        table.add_row(precision, mode, loss, f"{seconds:.2f}", f"{megabytes:,.0f}")
        found.append({"precision": precision, "mode": mode, "loss": loss, "cpu_s": seconds, "added_mb": megabytes})
    Console().print(table)
    if options.json is not None:
        settings = json.loads(json.dumps(asdict(options), default=str))
        options.json.write_text(json.dumps({"settings": settings, "cases": found}, indent=1) + "\n")


def measure(options: Options, precision: str, compiled: bool, loss: str) -> tuple[float, float]:
    """CPU seconds and megabytes of one case, in this process alone."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    hidden = torch.randn(options.rows, options.width, dtype=dtype, requires_grad=True)
    weight = (torch.randn(options.vocab, options.width) * 0.02).to(dtype).requires_grad_()
    targets = torch.randint(options.vocab, (options.rows,))
    call: Callable[..., Tensor] = CONTESTANTS[loss]
    if compiled:
        call = torch.compile(call)

    def step() -> None:
        call(hidden, weight, targets).backward()
        hidden.grad = weight.grad = None

    step()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    seconds = []
    for _ in range(options.repeats):
        started = time.process_time()
        step()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds), (_status("VmHWM") - before) / 1e3


def _ours(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return linear_cross_entropy(hidden, weight, targets) / len(targets)


def _torch(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.linear_cross_entropy(hidden, weight, targets, options=nn.LinearCrossEntropyOptions())


def _torch_our_chunk(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    rows = CHUNK_LOGITS["cpu"] // len(weight)
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=rows, chunking_method=None)
    return nn.functional.linear_cross_entropy(hidden, weight, targets, options=options)


def _whole(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy((hidden @ weight.T).float(), targets)


CONTESTANTS: dict[str, Callable[..., Tensor]] = {
    "ours": _ours,
    "torch": _torch,
    "torch, our chunk": _torch_our_chunk,
    "whole": _whole,
}


def _status(key: str) -> int:
    """Kilobytes, from the kernel's account of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
