"""Measure whether one driver keeps many cores busy: the share of time in which workers do not wait for work.

Sixteen actors stand for 256 cores by waiting: an actor gets a chunk, sleeps as long as sixteen cores that share its
work would need, and returns files of a realistic size. All else is real: the scan (from outlines on the disk, as in a
run that continues), the pool, and the cache folder. The texts are not sent: they go from reader to worker, past the
driver. The share is that of the time in which all actors have begun and none has seen its last chunk.

The driver and all actors share this machine, so a busy machine starves the driver: see the CPU seconds beside the
share. Analyzing cores make 75,000 (Kkma of version 0.1) to 200,000 characters/s (today's).

    python bench/fed.py [--cores 256] [--seconds 20] [--chars-per-second-per-core 75000] [--json FILE]
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.pop(0)  # of this folder, preprocess.py would be the package `preprocess`
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import ray
import tyro
from rich.console import Console
from rich.table import Table

from kogpt.tokenizer.analyzers.load import analyzer_identity
from kogpt.tokenizer.normalize import Removed
from preprocess import stages
from preprocess.analyzing import analyze
from preprocess.cluster import connect, leave
from preprocess.documents import Document
from preprocess.options import Options as PipelineOptions
from preprocess.outlines import outlined
from preprocess.scan import Block, Scan
from preprocess.unit_stage import UnitTexts
from preprocess.units import Store
from preprocess.work import Work
from preprocess.worker import NotYet


@dataclass(frozen=True)
class Options:
    """Does one driver feed this many cores?"""

    cores: int = 256
    """Cores that the actors stand for."""
    actors: int = 16
    """Processes."""
    seconds: float = 20.0
    """Length of the run, if all are fed."""
    chars: int = 1_400
    """Characters of an article."""
    chars_per_second_per_core: float = 75_000
    """Speed of an analyzing core."""
    json: Path | None = None
    """Also write the numbers to this file."""


@dataclass
class Waiting:
    """A packing that sleeps instead of the analysis, and adds to the files of a chunk when its work began and ended."""

    chars_per_second: float
    bytes_per_char: float = 2.2
    begun: float = field(default=0.0, compare=False)

    def items(self, sizes: stages.Sizes, *parts: Any) -> list[int]:
        self.begun = time.monotonic()
        return [size for unit in sizes for size in unit]

    def pack(self, items: Sequence[int], results: Sequence[Any], sizes: stages.Sizes, *parts: Any) -> list[Any]:
        time.sleep(sum(items) / self.chars_per_second)
        files = [os.urandom(int(self.bytes_per_char * sum(unit))) for unit in sizes]
        return [*files, (os.getpid(), self.begun, time.monotonic())]


def nothing() -> Any:
    """Set up work that does nothing."""
    return lambda item: None


def articles(count: int, chars: int) -> Iterator[Document]:
    """Articles of this length, each with another digest."""
    text = "가나다 라" * (chars // 5)
    for i in range(count):
        yield Document(f"a.jsonl#{i}", "a.jsonl", text, os.urandom(32).hex(), Removed(0, 0))


def share(spans: Sequence[tuple[int, float, float]]) -> float:
    """The share of the time in which the actors worked."""
    by_actor: dict[int, list[tuple[float, float]]] = {}
    for pid, begun, ended in spans:
        by_actor.setdefault(pid, []).append((begun, ended))
    first = max(min(begun for begun, _ in own) for own in by_actor.values())
    last = min(max(begun for begun, _ in own) for own in by_actor.values())
    if last <= first:
        raise SystemExit("the actors began one after the other for the whole run; give more --seconds")
    busy = sum(max(0.0, min(ended, last) - max(begun, first)) for own in by_actor.values() for begun, ended in own)
    return busy / (len(by_actor) * (last - first))


def measure(options: Options) -> dict[str, Any]:
    rate = options.cores * options.chars_per_second_per_core
    count = int(options.seconds * rate / options.chars)
    spans: list[tuple[int, float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, cache = Store(folder / "outlines"), Store(folder / "cache")
        blocks = []
        for i, content in enumerate(outlined(articles(count, options.chars))):
            blocks.append(Block(0, str(i)))
            store.put(blocks[-1].key, content)
        given = PipelineOptions(input=("x",), output=str(folder / "corpus"), analyzer="none", workers=options.actors)
        work = Work(given)
        stages.MorphemeStage = lambda analyzer: nothing  # type: ignore
        waiting = Waiting(rate / options.actors)
        stages.MorphemePacking = lambda: waiting  # type: ignore
        texts = ray.put(["no text"])
        through_pool = work.through_pool

        def spied(stage: str, setup: Any, chunks: Any, commit: Any, **more: Any) -> None:
            def without_times(keys: Any, results: Any) -> None:
                spans.append(results.content.pop())
                commit(keys, results)

            through_pool(stage, setup, chunks, without_times, **more)

        work.through_pool = spied  # type: ignore[method-assign]
        me = psutil.Process()
        before, began = me.cpu_times(), time.monotonic()
        analyze(
            "morphemes",
            UnitTexts(
                Scan(blocks, store, analyzer_identity("none")),
                lambda chunks: (c if isinstance(c, NotYet) else (c, (texts,)) for c in chunks),
                lambda chunk: (texts,),
            ),
            cache,
            work,
            "none",
            "",
        )
        after, wall = me.cpu_times(), time.monotonic() - began
    cpu = after.user + after.system - before.user - before.system
    return {
        "articles": count,
        "seconds": wall,
        "CPU seconds of the driver": cpu,
        "CPU ms of the driver per article": 1000 * cpu / count,
        "share of the time in which workers were fed": share(spans),
    }


def main() -> None:
    options = tyro.cli(Options)
    print(connect("local", options.actors))
    try:
        numbers = measure(options)
    finally:
        leave()
    table = Table(title=f"{options.actors} actors for {options.cores} cores", show_header=False)
    for name, value in numbers.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)
    if options.json is not None:
        settings = {**asdict(options), "json": str(options.json)}
        options.json.write_text(json.dumps({"settings": settings, **numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
