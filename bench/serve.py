"""Measure the server over HTTP: the first token, streams together, and what a message that is made to be slow delays.

    python bench/serve.py --tokenizer VOCABULARY [--analyzer kkma] [--rounds 20] [--json OUT.json]

A random model of 5.6M parameters (the numbers do not depend on its weights) with a WordPiece vocabulary is served by
`kogpt serve` in a process of its own, on loopback. Requests go to /v1/completions.

- First token: from the request to the first text, one request after the other, median and slowest.
- Streams: tokens per second of 1, 8, and 32 streams together.
- Hostile: while one hostile prompt is under way, a short request is sent every 50 ms. Reported is the slowest first
  token among them, beside that without the hostile prompt, in turns.
"""

import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
import tyro
from rich.console import Console
from rich.table import Table

from kogpt.checkpoint.writer import write_checkpoint
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.tokenizer.analyzers.load import analyzer_identity
from kogpt.tokenizer.wordpiece import load_tokenizer

SHORT = "대한민국의 모든 국민은"
HOSTILE = {
    "ㄷ x 4,000": "ㄷ" * 4000,
    "굿 x 4,000": "굿" * 4000,
    "emoji x 4,000": "😀" * 4000,
    "4,000 without a space": "".join(chr(0xAC00 + i * 37 % 11172) for i in range(4000)),
    "1,000 words of jamo": "ㅋㅋㄷ " * 1000,
    "20,000 without a space": "가나다라마" * 4000,
}


@dataclass(frozen=True)
class Options:
    """Measure `kogpt serve`."""

    tokenizer: str
    """WordPiece vocabulary: a folder, or a name on the Hugging Face hub."""
    analyzer: str = "kkma"
    """kkma, kiwi, or none."""
    rounds: int = 20
    """Requests of the first measurement."""
    tokens: int = 100
    """Tokens of each stream."""
    json: Path | None = None
    """Also write the numbers to this file."""


def make_run(folder: Path, options: Options) -> int:
    """A run with a random model; its number of parameters."""
    tokenizer = load_tokenizer(options.tokenizer, spacing="original", analyzer=analyzer_identity(options.analyzer))
    tokenizer.save(folder / "tokenizer")
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=tokenizer.vocab_size, max_seq_len=512, n_layer=4, n_head=3, n_embd=192)
    model = GPT(config)
    write_checkpoint(folder, 0, model.state_dict(), {"model": config.to_dict(), "step": 0}, {"step": 0})
    return config.parameter_count


@asynccontextmanager
async def server(run: Path) -> AsyncIterator[str]:
    """The address of `kogpt serve` for the run."""
    code = "from kogpt.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(run), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"Open (http://\S+)/", line):
                    break
            else:
                raise SystemExit("".join(lines))
            yield found[1]
        finally:
            process.terminate()


async def first_token(api: httpx.AsyncClient, prompt: str, tokens: int = 1) -> tuple[float, float, int]:
    """(seconds to the first token, to the end, tokens) of a request; (inf, seconds, status) of a refused one."""
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}}
    began, first, count = time.perf_counter(), float("inf"), 0
    async with api.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            await response.aread()
            return float("inf"), time.perf_counter() - began, response.status_code
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                first = min(first, time.perf_counter() - began)
                if '"usage"' in line:
                    count = json.loads(line[6:])["usage"]["completion_tokens"]
    return first, time.perf_counter() - began, count


async def streams(api: httpx.AsyncClient, number: int, tokens: int) -> float:
    """Tokens per second of so many streams together."""
    began = time.perf_counter()
    ended = await asyncio.gather(*(first_token(api, SHORT, tokens) for _ in range(number)))
    return sum(count for _, _, count in ended) / (time.perf_counter() - began)


async def beside(api: httpx.AsyncClient, prompt: str | None) -> tuple[float, str]:
    """The slowest first token of short requests within a second, while a hostile prompt is under way, and its end."""
    hostile = asyncio.create_task(first_token(api, prompt or SHORT))
    others = []
    began = time.perf_counter()
    while time.perf_counter() - began < 1 or not hostile.done():
        others.append(asyncio.create_task(first_token(api, SHORT)))
        await asyncio.sleep(0.05)
    slowest = max(first for first, _, _ in await asyncio.gather(*others))
    first, seconds, status = await hostile
    return slowest, f"{seconds:.2f} s" if first < float("inf") else f"{status} after {seconds:.2f} s"


async def measure(run: Path, options: Options) -> dict[str, Any]:
    """All the numbers."""
    async with server(run) as address, httpx.AsyncClient(base_url=address, timeout=300) as api:
        await first_token(api, SHORT, 10)
        times = [(await first_token(api, SHORT))[0] for _ in range(options.rounds)]
        rates = {number: await streams(api, number, options.tokens) for number in (1, 8, 32)}
        hostile = {}
        for name, prompt in HOSTILE.items():
            alone, _ = await beside(api, None)
            slowest, end = await beside(api, prompt)
            hostile[name] = {"alone": alone, "beside": slowest, "end": end}
    return {
        "first_token": {"median": statistics.median(times), "slowest": max(times)},
        "tokens_per_s": rates,
        "hostile": hostile,
    }


def main() -> None:
    """Measure, and print tables."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as folder:
        parameters = make_run(Path(folder) / "run", options)
        numbers = asyncio.run(measure(Path(folder) / "run", options))
    numbers["parameters"] = parameters
    console = Console()
    first = numbers["first_token"]
    console.print(f"{parameters / 1e6:.1f}M parameters, {options.analyzer}")
    console.print(f"first token: median {first['median'] * 1e3:.0f} ms, slowest {first['slowest'] * 1e3:.0f} ms")
    for number, rate in numbers["tokens_per_s"].items():
        console.print(f"{number} streams: {rate:.0f} tokens/s, {rate / numbers['tokens_per_s'][1]:.1f} x one")
    table = Table("hostile prompt", "its end", "slowest first token beside it", "without it")
    for name, found in numbers["hostile"].items():
        table.add_row(name, found["end"], f"{found['beside'] * 1e3:.0f} ms", f"{found['alone'] * 1e3:.0f} ms")
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
