"""Measure real shapes on one GPU: tokens/s, MFU, and peak memory of ours in each ZeRO stage and of others.

    python bench/train.py gpu                                           # three shapes, each contestant compiled
    python bench/train.py gpu --gpu.shapes small:1024 --gpu.ids 16384   # one shape, for a smaller GPU
    python bench/train.py gpu --gpu.shapes tiny:64 --gpu.ids 256 --gpu.steps 1 --gpu.blocks 2    # also on a CPU

Everything is in bf16 (the plain loop and transformers by autocast) with a fused AdamW and torch's scaled dot product
attention; the script checks that its flash kernel accepts these shapes. A GPU older than Ampere has neither: there it
is fp16, and the memory-efficient kernel. Each contestant has its own process, so memory is measured separately. The
plain loop runs first and again at the end: the difference of its two results shows how reliable the others are. A
result is the median of `blocks` blocks of `steps` steps each, after a warm-up that compiles; on a slow GPU, of as many
blocks as begin within `ENOUGH` seconds. MFU uses the FLOPs of the model's configuration, and is unknown if the GPU is
not in the table.

Stages 1 to 3 are DeepSpeed's own on one rank, where training would use stage 0. The vocabulary is GPT-2's, rounded up
to a multiple of 64, so that its size puts nobody at a disadvantage.
"""

import statistics
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import contestants
import torch
from contestants import Step, Task, make_corpus
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel

from kogpt.train.distributed import Ranks
from kogpt.train.gpu_peaks import peak_flops
from kogpt.train.step_metrics import mfu

VOCABULARY = 50304
WARM_UP = 5
ENOUGH = 20.0
"""Seconds of measured blocks after which no other begins."""
CONTESTANTS = ("plain loop", *(f"ours, ZeRO {n}" for n in range(4)), "transformers", "plain loop, again")


@dataclass(frozen=True)
class Options:
    """Shapes and length of the measurement on a GPU."""

    shapes: tuple[str, ...] = ("small:256", "small:1024", "medium:1024")
    """PRESET:CONTEXT; small is 124M, medium 355M."""
    ids: int = 32768
    """Tokens per step, in one micro-batch."""
    steps: int = 10
    """Steps in a block."""
    blocks: int = 5
    """Number of timed blocks; fewer on a slow GPU."""
    eager: bool = False
    """Without torch.compile."""


def measure(options: Options, scratch: Path) -> dict[str, Any]:
    """Measure all shapes and contestants, and print a table of each shape."""
    rows = []
    for row in measured(options, scratch):
        rows.append(row)
        if row["contestant"] == CONTESTANTS[-1]:
            table = Table(row["shape"], "tokens/s", "MFU", "peak GiB", title=f"{row['parameters'] / 1e6:.0f}M")
            for each in rows[-len(CONTESTANTS) :]:
                table.add_row(each["contestant"], *_cells(each))
            Console().print(table)
    return {"rows": rows}


def measured(options: Options, scratch: Path, names: Sequence[str] = CONTESTANTS) -> Iterator[dict[str, Any]]:
    """A row for each shape and contestant, as soon as it is measured. If one fails, its row has the error."""
    corpus = scratch / "corpus"
    if not corpus.exists():
        make_corpus(corpus, vocab=VOCABULARY, ids=2_000_000)
    for shape in options.shapes:
        preset, context = shape.split(":")
        windows = options.ids // int(context)
        folder = scratch / f"{preset}-{context}"  # for the runs, which would find those of another shape
        folder.mkdir(exist_ok=True)
        task = Task(corpus, folder, ("--preset", preset), context=int(context), windows=windows, micro=windows)
        for name in names:
            row = {"shape": shape, "contestant": name, "parameters": task.model.parameter_count}
            yield row | _in_a_process(task, name, options)


def _in_a_process(task: Task, name: str, options: Options) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_run, task, name, options).result()
        except Exception as error:  # out of memory, or a compiler error: continue with the others
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "error" in row:
        return row["error"].splitlines()[0][:80], "", ""
    share = "unknown" if row["mfu"] is None else f"{row['mfu']:.1%}"
    return f"{row['tokens_per_s']:,.0f}", share, f"{row['peak_gib']:.1f}" if row["peak_gib"] else "-"


def _run(task: Task, name: str, options: Options) -> dict[str, Any]:
    """Measure one contestant in this process."""
    ranks, stop = contestants.start()
    cuda = ranks.device.type == "cuda"
    step = _contestant(task, ranks, stop, name, compiled=not options.eager)
    if cuda and torch.cuda.get_device_capability(ranks.device) >= (8, 0):
        _demand_flash(task)
    seconds = _time(step, ranks, options)
    tokens_per_s = task.tokens * options.steps / statistics.median(seconds)
    device = torch.cuda.get_device_name(ranks.device) if cuda else "cpu"
    peak = peak_flops(device, "bf16" if contestants.half(ranks.device) == torch.bfloat16 else "fp16")
    return {
        "tokens_per_s": tokens_per_s,
        "seconds": seconds,
        "mfu": mfu(tokens_per_s, task.model.flops_per_token(task.context), peak, 1),
        "peak_gib": torch.cuda.max_memory_allocated(ranks.device) / 2**30 if cuda else None,
        "device": device,
    }


def _contestant(task: Task, ranks: Ranks, stop: Any, name: str, compiled: bool) -> Step:
    if name.startswith("plain loop"):
        return contestants.plain(task, ranks, precision="bf16", compiled=compiled)
    if name == "transformers":
        return contestants.of_transformers(task, ranks, precision="bf16", compiled=compiled, fused=True)
    stage = int(name.removeprefix("ours, ZeRO "))
    return contestants.ours(task, ranks, stop, stage=stage, precision="bf16", compiled=compiled, bare=True)


def _time(step: Step, ranks: Ranks, options: Options) -> list[float]:
    """Seconds of each block, by the clock."""
    for _ in range(WARM_UP):
        step()
    seconds: list[float] = []
    while len(seconds) < options.blocks and sum(seconds) < ENOUGH:
        _wait(ranks)
        started = time.perf_counter()
        for _ in range(options.steps):
            step()
        _wait(ranks)
        seconds.append(time.perf_counter() - started)
    return seconds


def _wait(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)


def _demand_flash(task: Task) -> None:
    """Raises an error if torch has no flash kernel for this shape on this GPU."""
    heads = (1, task.model.n_head, task.context, task.model.n_embd // task.model.n_head)
    query = torch.zeros(heads, device="cuda", dtype=torch.bfloat16)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        torch.nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True)
