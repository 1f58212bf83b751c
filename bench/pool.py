"""Measure how many articles per second one driver can feed, with no-op work on real Ray actors.

Articles of a realistic size (1,400 characters, as many per chunk as units have) go to actors, and results like those of
stage 1 (boundaries and morphemes) come back. Nothing is computed or written. Measured are articles/s by wall-clock, and
by CPU seconds of the driver (with its Ray threads), which is the limit when the actors are on other machines. From this
follows how many analyzing cores one driver can feed.

    python bench/pool.py [--workers 2] [--articles 20000] [--chars-per-second-per-core 75000] [--json FILE]
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.pop(0)  # of this folder, preprocess.py would be the package `preprocess`

import psutil
import tyro
from rich.console import Console
from rich.table import Table

from preprocess.cluster import connect, leave
from preprocess.pool import Pool
from preprocess.units import MEAN_DOCUMENTS


@dataclass(frozen=True)
class Options:
    """Driver throughput of preprocess.pool with no-op work."""

    workers: int = 2
    """Actors."""
    articles: int = 20_000
    """Articles to send."""
    chars: int = 1_400
    """Characters of an article."""
    chunk: int = MEAN_DOCUMENTS
    """Articles per chunk."""
    chars_per_second_per_core: float = 75_000
    """Speed of one analyzing core, to compute the number of cores that one driver can feed."""
    json: Path | None = None
    """Also write the numbers to this file."""


def no_work() -> Callable[[str], tuple[bytes, str, None]]:
    """Set up no-op work whose results have a realistic size."""
    cuts, morphemes = bytes(4 * 600), "형태소\x1f" * 600
    return lambda text: (cuts, morphemes, None)


def measure(options: Options) -> dict[str, Any]:
    """Send all articles through the pool once, after a warm-up."""
    text = "가나다 라" * (options.chars // 5)

    def chunks(articles: int) -> Iterator[tuple[int, list[str]]]:
        for start in range(0, articles, options.chunk):
            yield start, [text] * min(options.chunk, articles - start)

    with Pool(no_work, workers=options.workers) as pool:
        sum(1 for _ in pool.map(chunks(50 * options.chunk)))
        me = psutil.Process()
        before, began = me.cpu_times(), time.monotonic()
        received = sum(len(results) for _, results in pool.map(chunks(options.articles)) if isinstance(results, list))
        wall = time.monotonic() - began
        after = me.cpu_times()
    assert received == options.articles
    cpu = after.user + after.system - before.user - before.system
    per_cpu_second = options.articles / cpu
    return {
        "articles": options.articles,
        "workers": options.workers,
        "wall_seconds": wall,
        "driver_cpu_seconds": cpu,
        "articles_per_second": options.articles / wall,
        "articles_per_driver_cpu_second": per_cpu_second,
        "driver_ms_per_article": 1000 * cpu / options.articles,
        "cores_that_one_driver_feeds": per_cpu_second * options.chars / options.chars_per_second_per_core,
    }


def main() -> None:
    options = tyro.cli(Options)
    print(connect("local", options.workers))
    try:
        numbers = measure(options)
    finally:
        leave()
    table = Table(title="one driver, no-op work", show_header=False)
    for name, value in numbers.items():
        table.add_row(name.replace("_", " "), f"{value:,.3f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)
    if options.json is not None:
        settings = {**asdict(options), "json": str(options.json)}
        options.json.write_text(json.dumps({"settings": settings, **numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
