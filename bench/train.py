"""Measure training throughput and memory on this machine: ours against others, with the same shape and batches.

    python bench/train.py speed                  # ours, a plain loop, nanoGPT's recipe, transformers
    python bench/train.py speed --windows 64     # ... with 64 windows per step (16,384 tokens), 8 micro-batches
    python bench/train.py speed --compiled       # ... each also under torch.compile (minutes to compile)
    python bench/train.py ranks --windows 64     # 2 ranks against 1
    python bench/train.py memory                 # memory per rank by ZeRO stage against the formula
    python bench/train.py activations            # what --checkpoint-activations saves, and what it costs
    python bench/train.py gpu                    # bench/train_gpu.py: tokens/s, MFU, memory of real shapes on one GPU

The contestants are in bench/contestants.py. Speed is measured in rounds: in every round each contestant makes `--steps`
optimizer steps, in another order, and ratios are taken within a round, so that other load on the machine affects all
alike. Times are CPU seconds of this process (all its threads), which a busy machine distorts less than wall-clock time;
run it with OMP_NUM_THREADS=1, or on an idle machine. It prints the median ratio and its quartiles. "Default" means
ds_config.json for ours (bf16; its ZeRO 2 is stage 0 on one rank), and fp32 with torch's AdamW for transformers.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import contestants
import train_gpu
import tyro
from contestants import ROOT, Step, Task, make_corpus
from rich.console import Console
from rich.table import Table

from kogpt.common.ports import free_port
from kogpt.train.memory import memory_per_rank

MICRO = 8
"""The largest micro-batch of "speed" and "ranks"."""


@dataclass(frozen=True)
class Bench:
    """What to measure."""

    what: tyro.conf.Positional[Literal["speed", "ranks", "memory", "activations", "gpu"]]
    """One of these."""
    windows: int = 4
    """speed and ranks: windows of 256 tokens per optimizer step, in micro-batches of at most 8."""
    rounds: int = 8
    """speed, ranks, and activations: rounds. Every contestant runs once per round."""
    steps: int = 4
    """Optimizer steps per contestant and round."""
    compiled: bool = False
    """speed: also measure everything under torch.compile."""
    gpu: train_gpu.Options = field(default_factory=train_gpu.Options)
    """gpu: what to measure there."""
    json: Path | None = None
    """Also write the numbers to this file."""


def speed(bench: Bench, task: Task) -> dict[str, Any]:
    """Run interleaved rounds, and print one line per ratio of tokens/s that has a goal."""
    ranks, stop = contestants.start()

    def build(name: str, compiled: bool) -> Step:
        precision = "bf16" if "bf16" in name else "fp32"
        if name.startswith("ours"):
            return contestants.ours(task, ranks, stop, stage=2, precision=precision, compiled=compiled)
        if name.startswith("plain"):
            return contestants.plain(task, ranks, precision=precision, compiled=compiled)
        if name.startswith("nanoGPT"):
            return contestants.nanogpt_recipe(task, ranks, compiled=compiled)
        fused = "default" not in name
        return contestants.of_transformers(task, ranks, precision=precision, compiled=compiled, fused=fused)

    pairs = [
        ("ours, fp32", "plain loop, fp32", 0.97),
        ("ours, default (bf16)", "plain loop, bf16", 0.97),
        ("ours, fp32", "nanoGPT's recipe", 1.0),
        ("ours, fp32", "transformers, fp32", 1.0),
        ("ours, default (bf16)", "transformers, bf16", 1.0),
        ("ours, default (bf16)", "transformers, default", 1.5),
    ]
    if bench.compiled:
        pairs += [(f"{mine}, compiled", f"{theirs}, compiled", goal) for mine, theirs, goal in pairs if "fp32" in mine]
    names = dict.fromkeys(name for mine, theirs, _ in pairs for name in (mine, theirs))
    times = _rounds({name: build(name, name.endswith("compiled")) for name in names}, bench)
    tokens = task.tokens * bench.steps
    return {"tokens_per_cpu_second": _show_speeds(times, tokens), "ratios": _show_ratios(times, pairs)}


def _rounds(steps: dict[str, Step], bench: Bench) -> dict[str, list[float]]:
    """CPU seconds of each contestant in each round; the first round warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    shuffle = random.Random(0)
    for number in range(bench.rounds + 1):
        for name in shuffle.sample(list(steps), len(steps)):
            started = time.process_time()
            for _ in range(bench.steps):
                steps[name]()
            if number:
                times[name].append(time.process_time() - started)
    return times


def _show_speeds(times: dict[str, list[float]], tokens: int) -> dict[str, Any]:
    table = Table("contestant", "tokens per CPU second (median)", "best")
    found = {}
    for name, seconds in sorted(times.items(), key=lambda entry: statistics.median(entry[1])):
        found[name] = {"median": tokens / statistics.median(seconds), "best": tokens / min(seconds)}
        table.add_row(name, f"{found[name]['median']:,.0f}", f"{found[name]['best']:,.0f}")
    Console().print(table)
    return found


def _show_ratios(times: dict[str, list[float]], pairs: list[tuple[str, str, float]]) -> list[dict[str, Any]]:
    table = Table("faster?", "against", "ratio (median)", "quartiles", "goal")
    found = []
    for mine, theirs, goal in pairs:
        ratios = [b / a for a, b in zip(times[mine], times[theirs], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        verdict = "met" if middle >= goal else "MISSED"
        table.add_row(mine, theirs, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{goal} {verdict}")
        found.append({"ours": mine, "against": theirs, "median": middle, "quartiles": [low, high], "goal": goal})
    Console().print(table)
    return found


def _train(task: Task, ranks: int, out: Path, config: Path, steps: int, *flags: str) -> list[dict[str, Any]]:
    """A training under the `deepspeed` command; its metrics.jsonl."""
    command = [sys.executable, str(Path(sys.executable).with_name("deepspeed")), "-q", "--num_accelerators", str(ranks)]
    command += ["--master_port", str(free_port()), str(ROOT / "launch" / "train.py")]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // ranks)), "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [*command, *task.flags(out, config, steps), *flags],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}")
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def ranks(bench: Bench, task: Task) -> dict[str, Any]:
    """Measure the same global batch on one rank with all cores, and on two ranks with half of them each, in turn."""
    config = task.deepspeed_file(2, "bf16")
    found = []
    for number in range(bench.rounds):
        seconds = {}
        for count in (1, 2) if number % 2 else (2, 1):
            records = _train(task, count, task.scratch / f"{number}-{count}", config, 12)
            seconds[count] = statistics.median(record["step_s"] for record in records[4:])
        found.append(seconds[1] / seconds[2])
        print(f"round {number}: 1 rank {seconds[1]:.3f} s per step, 2 ranks {seconds[2]:.3f} s, {found[-1]:.2f} x")
    print(f"2 ranks against 1: {statistics.median(found):.2f} x")
    return {"ratios": found, "median": statistics.median(found)}


def memory(bench: Bench, task: Task) -> dict[str, Any]:
    """Compare resident memory per rank before the update, minus that of a tiny model, with the formula."""
    table = Table("stage", "ranks", "bytes per parameter, measured", "formula", "formula with activations")
    shapes = {depth: replace(task, shape=("--arch", "gpt2", "--depth", str(depth))) for depth in (1, 8)}
    found = []
    for count in (1, 2):
        for stage in (0, 1, 2, 3):
            peaks, needs, sizes = [], [], []
            for depth, shaped in shapes.items():
                batch = replace(shaped, windows=count * shaped.micro)
                out = task.scratch / f"memory-{stage}-{count}-{depth}"
                records = _train(batch, count, out, batch.deepspeed_file(stage, "bf16"), 4)
                peaks.append(max(record["memory_gib_rank0"] for record in records) * 2**30)
                sizes.append(batch.model.parameter_count)
                more = {"stage": stage, "world_size": count, "micro_batch": batch.micro, "seq_len": batch.context}
                needs.append(memory_per_rank(batch.model, precision="bf16", **more))
            more_parameters = sizes[1] - sizes[0]
            measured = (peaks[1] - peaks[0]) / more_parameters
            formula = (needs[1].total - needs[1].activations - needs[1].buffers) / sizes[1]
            whole = (needs[1].total - needs[0].total) / more_parameters
            table.add_row(str(stage), str(count), f"{measured:.1f}", f"{formula:.1f}", f"{whole:.1f}")
            row = {"stage": stage, "ranks": count, "measured": measured, "formula": formula, "with_activations": whole}
            found.append(row)
    Console().print(table)
    return {"bytes_per_parameter": found}


def activations(bench: Bench, task: Task) -> dict[str, Any]:
    """Compare the memory and the time of a micro-batch with and without --checkpoint-activations."""
    kinds: dict[str, tuple[str, ...]] = {"kept": (), "computed again": ("--checkpoint-activations",)}
    small, large = 2, 10
    peaks: dict[tuple[str, int], float] = {}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(bench.rounds):
        for kind in list(kinds)[:: 1 if number % 2 else -1]:
            for micro in (small, large):
                shape = ("--arch", "qwen3", "--depth", "6")
                shaped = replace(task, shape=shape, context=1024, windows=micro, micro=micro)
                out = task.scratch / f"{number}-{kind.replace(' ', '-')}-{micro}"
                records = _train(shaped, 1, out, shaped.deepspeed_file(0, "bf16"), 3, *kinds[kind])
                peaks[kind, micro] = max(record["memory_gib_rank0"] for record in records)
            seconds[kind].append(min(record["step_s"] for record in records))
    table = Table("activations", "MiB per sequence of 1,024", "largest micro-batch in 8 GiB", "time per token")
    found = []
    for kind in kinds:
        each = (peaks[kind, large] - peaks[kind, small]) / (large - small)
        most = int((8 - peaks[kind, small]) / each) + small
        slower = statistics.median(b / a for a, b in zip(seconds["kept"], seconds[kind], strict=True))
        table.add_row(kind, f"{1024 * each:.0f}", str(most), f"{slower:.2f} x")
        found.append({"activations": kind, "mib_per_sequence": 1024 * each, "micro_batch": most, "time": slower})
    Console().print(table)
    return {"activations": found}


def main(bench: Bench) -> None:
    """Measure, print the table, and write the numbers."""
    what: dict[str, Callable[[Bench, Task], dict[str, Any]]]
    what = {"speed": speed, "ranks": ranks, "memory": memory, "activations": activations}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if bench.what == "gpu":
            found = train_gpu.measure(bench.gpu, scratch)
        else:
            micro = min(MICRO, bench.windows)
            corpus = make_corpus(scratch / "corpus")
            shape = ("--arch", "gpt2", "--depth", "4")
            task = Task(corpus, scratch, shape, context=256, windows=bench.windows, micro=micro)
            found = what[bench.what](bench, task)
    if bench.json is not None:
        settings = json.loads(json.dumps(asdict(bench), default=str))
        bench.json.write_text(json.dumps({"settings": settings, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))
