"""Measure what preprocessing keeps of each article, how soon its work starts, and how soon it goes on after a kill.

Synthetic short articles go through the whole pipeline (local Ray, `--analyzer none`, a vocabulary of single syllables)
in a process of its own, first few, then many. Memory is what the driver's process has for itself at most (RssAnon:
without mapped files, which the system can take back). What an article takes is the difference of the two runs, without
what a run takes whatever its size. Then the large run is killed (SIGKILL) when half of its units are analyzed, and
started again.

    python bench/scale.py [--articles 1000000] [--fewer 200000] [--chars 100] [--workers 2] [--json FILE]
"""

import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.pop(0)  # of this folder, preprocess.py would be the package `preprocess`
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tyro
from rich.console import Console
from rich.table import Table

from bench.driver import no_op, write_articles, write_vocabulary
from preprocess import pipeline
from preprocess.pool import Pool
from preprocess.scan import Scan


@dataclass(frozen=True)
class Options:
    """Memory of an article, start, and restart."""

    articles: int = 1_000_000
    """Articles of the large run."""
    fewer: int = 200_000
    """Articles of the small run."""
    chars: int = 100
    """Characters of an article, on average."""
    workers: int = 2
    """Actors."""
    json: Path | None = None
    """Also write the numbers to this file."""


def own_bytes() -> int:
    """The memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def run(folder: Path, name: str, workers: int, sink: Any) -> None:
    """One run, in a process of its own; sends (what, seconds since the start, bytes at most so far)."""
    began, most = time.monotonic(), 0
    pipeline.LARGE = 0  # workers read the small input too

    def tell(what: str) -> None:
        sink.send((what, time.monotonic() - began, most))

    def watch() -> None:
        nonlocal most
        while True:
            most = max(most, own_bytes())
            time.sleep(0.05)

    def once(owner: Any, method: str, what: str) -> None:
        original = getattr(owner, method)

        def told(*arguments: Any, **named: Any) -> Any:
            setattr(owner, method, original)
            tell(what)
            return original(*arguments, **named)

        setattr(owner, method, told)

    threading.Thread(target=watch, daemon=True).start()
    once(Pool, "_send", "first work")
    original = Scan.coming

    def coming(scan: Scan) -> Any:
        yield from original(scan)
        tell("scan ended")

    Scan.coming = coming  # type: ignore[method-assign,assignment]
    once(pipeline._Run, "_encode", "analyzed")
    once(pipeline, "assemble", "encoded")
    pipeline.preprocess(no_op(folder, name, name, workers))
    tell("done")


def started(options: Options, folder: Path, name: str) -> tuple[Any, Any]:
    """The process of a run, and where its messages come out."""
    context = multiprocessing.get_context("spawn")
    source, sink = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(folder, name, options.workers, sink))
    process.start()
    sink.close()
    return process, source


def finished(process: Any, source: Any) -> dict[str, tuple[float, int]]:
    """The first message of each kind."""
    found: dict[str, tuple[float, int]] = {}
    try:
        while True:
            what, seconds, most = source.recv()
            found.setdefault(what, (seconds, most))
    except EOFError:
        process.join()
    if "done" not in found:
        raise RuntimeError(f"the run ended with {process.exitcode}")
    return found


def measure(options: Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_vocabulary(folder / "vocabulary")
        for kind, count in (("few", options.fewer), ("many", options.articles)):
            write_articles(folder / kind, count, options.chars, seed=count)
        few = finished(*started(options, folder, "few"))
        units = sum(1 for _ in os.scandir(folder / "few-cache")) * options.articles // options.fewer
        process, source = started(options, folder, "many")
        first = dict[str, tuple[float, int]]()
        while not (folder / "many-cache").is_dir() or sum(1 for _ in os.scandir(folder / "many-cache")) < units // 2:
            time.sleep(0.5)
            while source.poll():
                what, *numbers = source.recv()
                first.setdefault(what, tuple(numbers))
        process.kill()
        process.join()
        many = finished(*started(options, folder, "many"))
    more = options.articles - options.fewer
    return {
        "seconds to the first work": first["first work"][0],
        "seconds to the end of the scan": first.get("scan ended", (None,))[0],
        "seconds to the first work after the kill": many["first work"][0],
        "seconds to the end of the scan after the kill": many["scan ended"][0],
        "bytes an article, when analyzed": (many["analyzed"][1] - few["analyzed"][1]) / more,
        "bytes an article, when encoded": (many["encoded"][1] - few["encoded"][1]) / more,
        "bytes an article, at most": (many["done"][1] - few["done"][1]) / more,
        "memory of the driver, MiB": many["done"][1] / 2**20,
        "few": few,
        "many, before the kill": first,
        "many": many,
    }


def main() -> None:
    options = tyro.cli(Options)
    numbers = measure(options)
    table = Table(title=f"{options.articles:,} articles of {options.chars} characters", show_header=False)
    for name, value in numbers.items():
        if not isinstance(value, dict):
            table.add_row(name, "after the kill" if value is None else f"{value:,.1f}")
    Console().print(table)
    if options.json is not None:
        settings = {**asdict(options), "json": str(options.json)}
        options.json.write_text(json.dumps({"settings": settings, **numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
