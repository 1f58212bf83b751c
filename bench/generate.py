"""Measure the KV cache: cached generation against running the whole context through the model for every token.

    python bench/generate.py [--lengths 64 128 256] [--batch 4] [--json OUT.json]

One random model (the numbers do not depend on its weights), greedy, the same prompt. Cached and uncached generation
alternate `--rounds` times. Reported are tokens per second of each (median of the rounds, by CPU time of the process on
a CPU, by wall-clock on a GPU), their paired ratio, and whether both gave the same tokens.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from kogpt.generate.decode import generate
from kogpt.generate.sampling import Sampling
from kogpt.model.gpt2 import GPT, GPTConfig


@dataclass(frozen=True)
class Options:
    """Measure the speed-up of the KV cache."""

    lengths: tuple[int, ...] = (64, 128, 256)
    """Context lengths. The prompt has 16 tokens, and the rest is generated."""
    batch: int = 4
    """Rows generated together."""
    n_layer: int = 6
    """Layers."""
    n_embd: int = 384
    """Width; heads are 64 wide."""
    vocab_size: int = 20_000
    """Size of the vocabulary."""
    rounds: int = 2
    """Number of measurements of each, in turns."""
    json: Path | None = None
    """Also write the numbers to this file."""


def uncached(model: GPT, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Greedy generation without a cache."""
    ids = torch.tensor(prompts, device=model.device)
    with torch.no_grad():
        for _ in range(count):
            hidden = model.hidden(ids)[:, -1:]
            ids = torch.cat([ids, model.logits(hidden).argmax(-1)], 1)
    return ids[:, len(prompts[0]) :].tolist()


def cached(model: GPT, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Greedy generation as `kogpt generate` does it."""
    steps = generate(model, prompts, Sampling(max_new_tokens=count, greedy=True))
    return [[id for id in row if id is not None] for row in zip(*steps, strict=True)]


def timed(device: str, work: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    """The seconds that `work` takes, and its result."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    result = work()  # ends with .tolist(), which waits for a GPU
    return clock() - start, result


def measure(options: Options, length: int, device: str) -> dict[str, object]:
    """One row of the table."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=options.vocab_size,
        max_seq_len=length,
        n_layer=options.n_layer,
        n_head=options.n_embd // 64,
        n_embd=options.n_embd,
    )
    model = GPT(config).to(device).eval()
    prompts = torch.randint(options.vocab_size, (options.batch, 16)).tolist()
    count = length - 16
    cached(model, prompts, 4), uncached(model, prompts, 4)
    slow, fast, equal = [], [], True
    for _ in range(options.rounds):
        seconds, ids = timed(device, lambda: uncached(model, prompts, count))
        slow.append(seconds)
        seconds, again = timed(device, lambda: cached(model, prompts, count))
        fast.append(seconds)
        equal = equal and ids == again
    made = options.batch * count
    return {
        "context": length,
        "uncached_ids_per_s": made / statistics.median(slow),
        "cached_ids_per_s": made / statistics.median(fast),
        "speed_up": statistics.median(a / b for a, b in zip(slow, fast, strict=True)),
        "same_ids": equal,
    }


def main(options: Options) -> None:
    """Measure and print."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = Table("context", "uncached ids/s", "cached ids/s", "speed-up", "same ids")
    rows = [measure(options, length, device) for length in options.lengths]
    for row in rows:
        table.add_row(
            str(row["context"]),
            f"{row['uncached_ids_per_s']:,.0f}",
            f"{row['cached_ids_per_s']:,.0f}",
            f"{row['speed_up']:.1f}x",
            "yes" if row["same_ids"] else "no",
        )
    Console().print(table)
    if options.json is not None:
        report = {"device": device, "threads": torch.get_num_threads(), "batch": options.batch, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
