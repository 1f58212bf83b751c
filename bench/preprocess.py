"""Measure preprocessing as a whole: speed per core, efficiency, overhead, memory, and time for 140,000 articles.

    python bench/preprocess.py --articles ARTICLES.jsonl.gz --tokenizer FOLDER --plot preprocess.png

In: JSON lines with a field `passage`. The real pipeline (preprocess.pipeline, local Ray, Kkma) runs on the first
`limit` articles with 1, 2, 4, and 16 analyzing cores, each in its own process; with more workers than cores only the
memory is meaningful. Counted is the time from the end of a warm-up (JVM, JIT; on other articles) to the
last result of a stage, plus everything the driver does outside its pools:

    total     CPU of the driver and of all processes below it (raylet, gcs, agents, idle workers, actors), both stages
    inside    CPU of the threads in Kkma.analyze, Tokenizer.encode and Tokenizer.count_unknown (time.thread_time)
    JVM       CPU of the JVM's compiler and collector threads, by name; what a thread that ended had used is lost
    outside   total - inside - JVM: Ray, the driver, packing, reading, assembling, and what the JVM part lost

Memory is PSS (shared pages divided among those who share them), sampled once a second from outside. The konlpy loop
runs before and after the pipeline's one-core run on the first 200 of the articles (bench/kkma.py); the driver's own
limit and the corpus are measured by bench/pool.py and bench/corpus.py. Rows say "measured" or "extrapolated".
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.pop(0)  # of this folder, this file would be the package `preprocess`
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import tyro
from rich.console import Console
from rich.table import Table

from bench.kkma import PLAIN, PLAIN_17, Variant, java_17, read_articles
from bench.process_usage import Usage, sample_memory
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.analyzers.kkma.analyzer import Kkma
from kogpt.tokenizer.wordpiece import Tokenizer, load_tokenizer
from preprocess import pipeline, pool, work
from preprocess.cluster import connect
from preprocess.options import Options as PipelineOptions
from preprocess.units import CutText, pack_cut_texts
from preprocess.worker import Packed, Packing

ROOT = Path(__file__).resolve().parent.parent
WARM_UP, LOOP, RUNS, ARTICLES, CORES = 200, 200, (1, 2, 4, 16), 140_000, (2, 16, 64, 256)


@dataclass(frozen=True)
class Options:
    """Measure the preprocessing on this machine."""

    articles: Path
    """JSONL file (or .gz) with a field `passage`."""
    tokenizer: str = "snunlp/KR-Medium"
    """A WordPiece folder, or a name on the hub."""
    limit: int = 1000
    """Articles to measure on. The next 200 are the warm-up."""
    json: Path | None = None
    """Also write the numbers to this file."""
    plot: Path | None = None
    """Draw the results into this PNG."""


# ---- one run of the pipeline, in a process of its own


@dataclass(frozen=True)
class Timed:
    """A stage's setup; each result comes with the CPU seconds that its thread spent inside Kkma or the tokenizer."""

    setup: Callable[[], Callable[[Any], Any]]

    def __call__(self) -> Callable[[Any], tuple[float, Any]]:
        here = threading.local()

        def timed(method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                start = time.thread_time()
                try:
                    return method(*arguments)
                finally:
                    here.seconds = getattr(here, "seconds", 0.0) + time.thread_time() - start

            return call

        for owner, name in ((Kkma, "analyze"), (Tokenizer, "encode"), (Tokenizer, "count_unknown")):
            setattr(owner, name, timed(getattr(owner, name)))
        function = self.setup()

        def work(item: Any) -> tuple[float, Any]:
            here.seconds = 0.0
            result = function(item)
            return here.seconds, result

        return work


@dataclass(frozen=True)
class TimedPacking:
    """A stage's packing; each chunk comes with the seconds of its results."""

    packing: Packing

    def items(self, *content: Any) -> Any:
        return self.packing.items(*content)

    def pack(self, items: Any, results: Any, *content: Any) -> tuple[float, Any]:
        seconds, own = zip(*results, strict=True)
        return sum(seconds), self.packing.pack(items, own, *content)


class CountingPool(pool.Pool):
    """The pipeline's pool; when all actors are there and warm, it counts until the last result is in."""

    warm_up: list[Any]
    """Texts for the first stage; the second one gets some of its own."""
    counts: list[dict[str, Any]]

    def __init__(self, setup: Any, packing: Any, **needs: Any) -> None:
        self._began, self._driver_before = time.monotonic(), time.process_time()
        super().__init__(Timed(setup), packing=TimedPacking(packing), **needs)

    def map(self, chunks: Any) -> Iterator[tuple[Any, list[Any] | Packed]]:
        contents: list[Any] = [([[1_000] * 5], self.warm_up[i : i + 5]) for i in range(0, len(self.warm_up), 5)]
        if self.counts:
            contents = [([[1] * 5], pack_cut_texts([CutText("가", b"", "가", None)] * 5))] * (WARM_UP // 5)
        self.wait()
        list(super().map(enumerate(contents)))
        start_up, before, began, inside = time.monotonic() - self._began, Usage.now(), time.monotonic(), 0.0
        for key, results in super().map(chunks):
            if isinstance(results, Packed):
                inside += results.content[0]
                yield key, Packed(results.content[1])
            else:
                inside += sum(result[0] for result in results)
                yield key, [result[1] for result in results]
        wall, used = time.monotonic() - began, Usage.now().since(before)
        in_pool = time.process_time() - self._driver_before
        self.counts.append(used | {"inside": inside, "wall": wall, "start_up": start_up, "driver_in_pool": in_pool})


def run_pipeline(options: Options, workers: int, answer: Path) -> None:
    """Preprocess the articles with a pool that counts."""
    CountingPool.warm_up = read_articles(options.articles, options.limit + WARM_UP)[options.limit :]
    CountingPool.counts = []
    work.Pool = CountingPool  # type: ignore[misc, assignment]
    connect("local", workers)
    with tempfile.TemporaryDirectory() as folder:
        arguments = PipelineOptions(
            input=(str(options.articles),),
            output=f"{folder}/corpus",
            tokenizer=options.tokenizer,
            text_path="passage",
            workers=workers,
            limit=options.limit,
        )
        load_tokenizer(options.tokenizer, spacing="original", analyzer={})  # importing what it needs is no work
        before = time.process_time()
        pipeline.preprocess(arguments)
        alone = time.process_time() - before - sum(stage["driver_in_pool"] for stage in CountingPool.counts)
        chars = TokenCorpus.open(Path(folder, "corpus")).manifest["counts"]["chars"]
    answer.write_text(json.dumps({"stages": CountingPool.counts, "driver_alone": alone, "chars": chars}))


# ---- the runs and what follows from them


def watched(options: Options, workers: int) -> dict[str, Any]:
    """One run of the pipeline, its memory sampled from here (MB)."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        arguments = json.dumps([str(options.articles), options.tokenizer, options.limit])
        command = [sys.executable, __file__, "--run", arguments, str(workers), str(answer)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peak: Counter[str] = Counter()
        while process.poll() is None:
            sample_memory(psutil.Process(process.pid), peak)
            time.sleep(1)
        if process.returncode:
            raise SystemExit(f"the run with {workers} workers ended with {process.returncode}")
        return json.loads(answer.read_text()) | {"memory": dict(peak), "workers": workers}


def measure(options: Options) -> dict[str, Any]:
    """All runs."""
    texts = read_articles(options.articles, options.limit + WARM_UP)
    fresh, looped, warm_up = texts[: options.limit], texts[: options.limit][:LOOP], texts[options.limit :]
    loops = {name: Variant(name) for name in [*([PLAIN_17] if java_17() else []), PLAIN]}
    for loop in loops.values():
        loop.ask("time", warm_up[: WARM_UP // 4])  # it is slower, and so as warm
    seconds = {name: loop.ask("time", looped[::2])["cpu"] for name, loop in loops.items()}
    runs = {1: watched(options, 1)}
    for name, loop in loops.items():
        seconds[name] += loop.ask("time", looped[1::2])["cpu"]
        loop.process.kill()
    runs |= {workers: watched(options, workers) for workers in RUNS[1:]}
    speed = runs[1]["chars"] / runs[1]["stages"][0]["actors"]
    shape = ["--chars", str(sum(map(len, fresh)) // len(fresh)), "--chars-per-second-per-core", str(speed)]
    return {
        "articles": len(fresh),
        "speed": {"pipeline, stage 1": speed} | {name: sum(map(len, looped)) / cpu for name, cpu in seconds.items()},
        "runs": {workers: run | derived(run) for workers, run in runs.items()},
        "driver": other("pool.py", "--articles", "6000", *shape),
        "corpus": other(
            "corpus.py",
            str(options.articles),
            "--tokenizer",
            options.tokenizer,
            "--limit",
            str(min(1000, options.limit)),
        ),
    }


def other(script: str, *arguments: str) -> dict[str, float]:
    """The numbers of another benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        command = [sys.executable, str(ROOT / "bench" / script), *arguments, "--json", str(answer)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(answer.read_text())


def derived(run: dict[str, Any]) -> dict[str, Any]:
    """Efficiency of stage 1, and what used the CPU in both stages."""
    analyse, encode = run["stages"]
    parts = {role: analyse[role] + encode[role] for role in ("driver", "ray", "actors", "jvm", "inside")}
    parts["driver"] += run["driver_alone"]
    parts["actors' rest"] = parts.pop("actors") - parts["inside"] - parts["jvm"]
    total = sum(parts.values())
    outside = total - parts["inside"] - parts["jvm"]
    return {
        "others": analyse["others"] / (analyse["wall"] * (os.cpu_count() or 1)),
        "efficiency": (analyse["inside"] + analyse["jvm"]) / (analyse["wall"] * run["workers"]),
        "shares": {part: seconds / total for part, seconds in parts.items()},
        "outside": outside / total,
        "outside_with_jvm": (outside + parts["jvm"]) / total,
    }


def extrapolate(result: dict[str, Any], cores: int) -> float:
    """Hours for all articles: start, reading and assembling, and the slower of the work and the driver.

    The work's CPU an article and the efficiency are those of 2 workers on this machine, which share its cores with the
    driver and Ray; nothing is known here of a network, and no run with more cores was made.
    """
    run, articles = result["runs"][2], result["articles"]
    work = sum(stage["inside"] + stage["jvm"] for stage in run["stages"]) / articles / (cores * run["efficiency"])
    driver = sum(stage["driver"] for stage in run["stages"]) / articles
    serial = run["driver_alone"] / articles
    return (sum(stage["start_up"] for stage in run["stages"]) + ARTICLES * (serial + max(work, driver))) / 3600


# ---- table and picture


def rows(result: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What, value, and measured or extrapolated."""
    speed, runs, driver, corpus = (result[name] for name in ("speed", "runs", "driver", "corpus"))
    ours = speed["pipeline, stage 1"]
    yield "stage 1 in the pipeline, chars/s of the actors' CPU", f"{ours:,.0f}", "measured"
    for name in list(speed)[1:]:
        yield f"  loop of {name}, chars/s (pipeline x)", f"{speed[name]:,.0f} ({ours / speed[name]:.1f})", "measured"
    for workers in (1, 2):
        run = runs[workers]
        parts = ", ".join(f"{part} {share:.1%}" for part, share in run["shares"].items())
        yield f"efficiency of stage 1, {workers} workers", f"{run['efficiency']:.1%}", "measured"
        yield "  cores' time that went to other programs", f"{run['others']:.1%}", "measured"
        yield f"CPU outside, {workers} workers (goal: 10 %)", f"{run['outside']:.1%}", "measured"
        yield "  JIT and GC counted as outside too", f"{run['outside_with_jvm']:.1%}", "measured"
        yield "  parts of all CPU", parts, "measured"
    yield "driver, no-op work, articles/s by the clock", f"{driver['articles_per_second']:,.0f}", "measured"
    fed = driver["cores_that_one_driver_feeds"]
    yield "  cores that it feeds, by its CPU", f"{fed:,.0f}", "extrapolated"
    yield "bytes per token", f"{corpus['bytes_per_id']:.3f}", "measured"
    windows, files = corpus["stream_windows_per_s"], corpus["pt_windows_per_s"]
    value = f"{windows:,.0f} / {files:,.0f} (x {windows / files:.0f})"
    yield "random windows/s of CPU, corpus / torch.load", value, "measured"
    for workers, run in runs.items():
        worker, rss, node = (run["memory"][name] for name in ("worker_pss", "worker_rss", "node_pss"))
        label = f"peak MB, {workers} analysing cores: worker PSS (RSS) / node PSS"
        yield label, f"{worker:,} ({rss:,}) / {node:,}", "measured"
    for cores in CORES:
        yield f"{ARTICLES:,} articles on {cores} cores, hours", f"{extrapolate(result, cores):.3f}", "extrapolated"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw speed, CPU, memory, and the extrapolation as four small figures."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, ((speed, cpu), (memory, hours)) = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    runs = result["runs"]
    speed.barh(list(result["speed"]), list(result["speed"].values()))
    speed.set_title("characters/s of CPU (measured)")
    left, names = [0.0, 0.0], {"jvm": "JIT and GC", "inside": "Kkma and tokenizer", "ray": "Ray"}
    for part in runs[1]["shares"]:
        shares = [100 * runs[workers]["shares"][part] for workers in (1, 2)]
        cpu.barh(["1 worker", "2 workers"], shares, left=left, label=names.get(part, part))
        left = [a + b for a, b in zip(left, shares, strict=True)]
    cpu.set_title("% of all CPU (measured)")
    cpu.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False)
    for name, shown in (("node_pss", "all processes"), ("worker_pss", "the largest worker")):
        memory.plot([str(n) for n in runs], [run["memory"][name] for run in runs.values()], marker="o", label=shown)
    memory.set_title("peak MB at analysing cores (measured)")
    memory.set_ylim(bottom=0)
    memory.legend()
    hours.loglog(CORES, [extrapolate(result, cores) for cores in CORES], "o--")
    hours.set_xticks(CORES, [str(cores) for cores in CORES])
    hours.yaxis.set_major_formatter("{x:g}")
    hours.yaxis.set_minor_formatter("{x:g}")
    hours.grid(axis="y", which="both", alpha=0.3)
    hours.set_title(f"hours for {ARTICLES:,} articles at cores (extrapolated)")
    figure.savefig(path, dpi=110)


def main(options: Options) -> None:
    """Measure, print, draw."""
    result = measure(options)
    table = Table("", "value", "", title=f"{result['articles']:,} articles, {os.cpu_count()} cores in this machine")
    for row in rows(result):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot is not None:
        draw(result, options.plot)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        articles, tokenizer, limit = json.loads(sys.argv[2])
        run_pipeline(Options(Path(articles), tokenizer, limit), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main(tyro.cli(Options))
