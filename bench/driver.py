"""Measure what the driver of preprocessing costs: its CPU for each article, by stage, and its memory.

Synthetic articles go through the whole pipeline (local Ray, `--analyzer none`, a vocabulary of single characters)
twice: a tenth of them, then other ones, all of them. The difference is what an article costs, without what a run costs
whatever its size. CPU is that of the driver's process with all its threads; actors and Ray's own processes are not in
it. Ray's threads take some of a core even while nothing happens, which counts on a busy machine, where the run takes
long: it is measured at the end, and is part of the CPU of "all". A third run finds all results in the cache.

    python bench/driver.py [--articles 20000] [--chars 1400] [--workers 2] [--screen] [--json FILE]
"""

import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.pop(0)  # of this folder, preprocess.py would be the package `preprocess`
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import tyro
from rich.console import Console
from rich.table import Table

from preprocess import pipeline
from preprocess.cluster import connect, leave
from preprocess.options import Options as PipelineOptions
from preprocess.scan import Scan

FILES = 8
GOAL = 0.05
IDLE_SECONDS = 10


@dataclass(frozen=True)
class Options:
    """The driver's CPU for each article, by stage."""

    articles: int = 20_000
    """Articles of the large run."""
    chars: int = 1_400
    """Characters of an article, on average."""
    workers: int = 2
    """Actors."""
    screen: bool = False
    """With --near-duplicates 0.8, and --quality with a rule that every article obeys."""
    json: Path | None = None
    """Also write the numbers to this file."""


STAGES: dict[str, tuple[Any, str]] = {
    "scan, within analyze": (Scan, "_take_in"),
    "screen": (pipeline, "screen"),
    "analyze": (pipeline, "analyze"),
    "encode": (pipeline._Run, "_encode"),
    "assemble": (pipeline, "assemble"),
    "report": (pipeline, "write_report"),
}


class Clock:
    """CPU seconds of all threads and of the main one, and wall seconds, by stage; the whole run is the stage "all"."""

    def __init__(self) -> None:
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.main: defaultdict[str, float] = defaultdict(float)
        self.wall: defaultdict[str, float] = defaultdict(float)

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            cpu, main, wall = time.process_time(), time.thread_time(), time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                self.cpu[stage] += time.process_time() - cpu
                self.main[stage] += time.thread_time() - main
                self.wall[stage] += time.monotonic() - wall

        return timed


def write_articles(folder: Path, count: int, chars: int, seed: int) -> None:
    """`count` articles as JSON lines in `FILES` files. Their lengths vary as much as those of real ones."""
    rng = random.Random(seed)
    syllables = [chr(code) for code in range(0xAC00, 0xAC00 + 11172, 7)]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 5))) for _ in range(5_000)]
    text = " ".join(rng.choices(words, k=200_000))
    folder.mkdir()
    for k in range(FILES):
        with open(folder / f"{k}.jsonl", "w", encoding="utf-8") as file:
            for _ in range(k, count, FILES):
                length = min(len(text) - 1, max(20, int(rng.expovariate(1 / chars))))
                start = rng.randrange(len(text) - length)
                file.write(json.dumps({"text": text[start : start + length]}, ensure_ascii=False) + "\n")


def write_vocabulary(folder: Path) -> None:
    """A vocabulary of single syllables."""
    folder.mkdir()
    syllables = [chr(code) for code in range(0xAC00, 0xAC00 + 11172, 7)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *syllables, *(f"##{c}" for c in syllables)]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")


def no_op(folder: Path, name: str, output: str, workers: int) -> PipelineOptions:
    """The options of a run over the articles `name` whose work costs nearly nothing."""
    return PipelineOptions(
        input=(str(folder / name),),
        output=str(folder / f"{output}-corpus"),
        cache=str(folder / f"{name}-cache"),
        tokenizer=str(folder / "vocabulary"),
        analyzer="none",
        layout="plain",
        workers=workers,
        ray_address="local",
    )


def run(options: Options, folder: Path, name: str, count: int, output: str) -> Clock:
    """One run of the pipeline over the articles `name`."""
    if not (folder / name).exists():
        write_articles(folder / name, count, options.chars, seed=count)
    clock = Clock()
    originals = {stage: getattr(owner, method) for stage, (owner, method) in STAGES.items()}
    for stage, (owner, method) in STAGES.items():
        setattr(owner, method, clock.around(stage, originals[stage]))
    try:
        given = no_op(folder, name, output, options.workers)
        if options.screen:
            (folder / "rules.toml").write_text("length = { min = 1 }\n", encoding="utf-8")
            given = replace(given, near_duplicates=0.8, quality=str(folder / "rules.toml"))
        clock.around("all", pipeline.preprocess)(given)
    finally:
        for stage, (owner, method) in STAGES.items():
            setattr(owner, method, originals[stage])
    return clock


def measure(options: Options) -> dict[str, Any]:
    """CPU ms of the driver for each article, by stage."""
    small = options.articles // 10
    pipeline.LARGE = 0  # workers read the small input too
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_vocabulary(folder / "vocabulary")
        print(connect("local", options.workers))
        try:
            run(options, folder, "warm-up", small // 2, "warm-up")  # imports cost more than a hundred articles
            first = run(options, folder, "few", small, "few")
            before = psutil.Process().memory_info().rss
            large = run(options, folder, "many", options.articles, "many")
            grown = psutil.Process().memory_info().rss - before
            again = run(options, folder, "many", options.articles, "again")
            idle = time.process_time()
            time.sleep(IDLE_SECONDS)
            idle = (time.process_time() - idle) / IDLE_SECONDS
        finally:
            leave()
    more = options.articles - small
    return {
        "cpu_ms": {stage: 1000 * (large.cpu[stage] - first.cpu[stage]) / more for stage in (*STAGES, "all")},
        "main_cpu_ms": {stage: 1000 * (large.main[stage] - first.main[stage]) / more for stage in (*STAGES, "all")},
        "cpu_ms_cached": {stage: 1000 * again.cpu[stage] / options.articles for stage in (*STAGES, "all")},
        "wall_seconds": dict(large.wall),
        "idle_ms": 1000 * idle * (large.wall["all"] - first.wall["all"]) / more,
        "bytes_an_article": grown / options.articles,
    }


def main() -> None:
    options = tyro.cli(Options)
    numbers = measure(options)
    table = Table(
        "stage", "CPU ms an article", "main thread alone", "all in the cache", "wall, s",
        title=f"the driver, {options.articles:,} articles of {options.chars:,} characters, {options.workers} workers "
        f"(goal: {GOAL} ms)",
    )  # fmt: skip
    for stage in (*STAGES, "all"):
        names = ("cpu_ms", "main_cpu_ms", "cpu_ms_cached", "wall_seconds")
        cpu, main_cpu, cached, wall = (numbers[name].get(stage, 0.0) for name in names)
        table.add_row(stage, f"{cpu:.4f}", f"{main_cpu:.4f}", f"{cached:.4f}", f"{wall:.1f}")
    Console().print(table)
    print(f"Ray's threads alone take {numbers['idle_ms']:.4f} ms an article in that time while nothing happens")
    print(f"resident memory grew by {numbers['bytes_an_article']:,.0f} bytes an article")
    if options.json is not None:
        settings = {**asdict(options), "json": str(options.json)}
        options.json.write_text(json.dumps({"settings": settings, **numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
