"""The part of bench/gpu_check.py that needs two ranks: a slow or hanging rank must not break the other one.

Each training is launch/train.py in two processes, started as a launcher would; `python gpu_pair.py ORDERS.json` is one
of them. The orders slow down the disk, or the first step, as an empty cache of the compiler does. SIGSTOP makes a rank
hang.
"""

import json
import os
import runpy
import signal
import socket
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import contestants
import torch
from contestants import ROOT, Task
from gpu_part import record
from torch import Tensor

from kogpt.data.batch import Batch
from kogpt.train.engine import TrainingEngine

SLOW_SECONDS, TOY_SLOW_SECONDS = 30.0, 1.0
"""The seconds that the slow disk takes for a file of a checkpoint, of which a rank writes two. Both files together take
more than the time-out of collectives (kogpt.train.distributed.STALL_SECONDS), and so does the slow first step."""


def main(scratch: Path, answer: Path, *, toy: bool) -> None:
    """Run all checks of the part. Each result is written at once."""
    device_count = torch.cuda.device_count()
    check = partial(record, answer)
    shape = ("--arch", "gpt2", "--depth", "1" if toy else "8")
    corpus = contestants.make_corpus(scratch / "corpus", vocab=1024, ids=40_000)
    task = Task(corpus, scratch, shape, context=64, windows=8, micro=2)
    seconds = TOY_SLOW_SECONDS if toy else SLOW_SECONDS
    compile = "off" if device_count < 2 else "on"
    alone = _train(task, scratch / "alone", _zero(0), ranks=1, steps=6, compile=compile)
    for stage in (1, 2, 3):
        run = _train(task, scratch / f"zero-{stage}", _zero(stage), steps=6, compile=compile)
        off = max((abs(a - b) for a, b in zip(run.losses, alone.losses, strict=False)), default=1.0)
        passed = run.codes == [0, 0] and len(run.losses) == 6 and off < 2e-2
        check(
            f"ZeRO {stage} on two ranks",
            passed,
            f"losses within {off:.1e} of one rank's {run.said if off == 1 else ''}",
        )

    slow = {"rank": 0, "fsync_seconds": seconds}
    for stage in (0, 2):
        out, flags = scratch / f"slow-disk-{stage}", ("--save-every", "2")
        run = _train(task, out, _zero(stage), steps=4, orders=slow, flags=flags)
        check(f"ZeRO {stage}: a disk that is slow on rank 0", run.codes == [0, 0], f"{run.seconds:.0f} s {run.said}")
    late = {"rank": 1, "first_step_seconds": 2 * seconds, "cold_cache": str(scratch / "cold")}
    run = _train(task, scratch / "late", _zero(2), steps=4, compile=compile, orders=late)
    check("a first step that is slow on rank 1", run.codes == [0, 0], f"{run.seconds:.0f} s {run.said}")
    if device_count < 2:
        check("overlap of communication", None, "needs two GPUs")
    else:
        check("overlap of communication", *_overlap(scratch))
    run = _train(task, scratch / "stopped", _zero(2), steps=100_000, stop_rank=1)
    check("a stopped rank ends the job", run.codes[0] not in (0, None), f"after {run.seconds:.0f} s: {run.said}")


def _zero(stage: int) -> dict[str, Any]:
    """The section of a DeepSpeed file."""
    return {"zero_optimization": {"stage": stage, "overlap_comm": True}}


def _overlap(scratch: Path) -> tuple[bool, str]:
    """Whether training with the shipped file is as fast with overlap as without; and both speeds."""
    shipped = json.loads((ROOT / "ds_config.json").read_text())
    corpus = contestants.make_corpus(scratch / "large", vocab=50304, ids=2_000_000)
    task = Task(corpus, scratch, ("--arch", "gpt2", "--depth", "12"), context=1024, windows=64, micro=16)
    rates = []
    for overlap in (True, False):
        zero = shipped["zero_optimization"] | {"overlap_comm": overlap}
        settings = {"bf16": shipped["bf16"], "zero_optimization": zero}
        run = _train(task, scratch / f"overlap-{overlap}", settings, steps=30, compile="on")
        if not run.rates:
            return False, run.said
        rates.append(statistics.median(run.rates))
    figure = f"{rates[0]:,.0f} tokens/s, without {rates[1]:,.0f}"
    return rates[0] >= 0.99 * rates[1], f"ZeRO {shipped['zero_optimization']['stage']}: {figure}"


class _Run:
    """The result of a training."""

    def __init__(self, out: Path, codes: list[int | None], seconds: float, log: Path) -> None:
        self.codes, self.seconds = codes, seconds
        lines = log.read_text(errors="replace").strip().splitlines()
        self.said = "" if codes == [0] * len(codes) else f"exit statuses {codes}; {' | '.join(lines[-2:])[-300:]}"
        metrics = out / "metrics.jsonl"
        records = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        self.losses = [record["loss"] for record in records]
        self.rates = [record["tokens_per_s"] for record in records[10:]]


def _train(
    task: Task,
    out: Path,
    settings: dict[str, Any],
    *,
    ranks: int = 2,
    steps: int,
    compile: str = "off",
    orders: dict[str, Any] | None = None,
    stop_rank: int | None = None,
    flags: tuple[str, ...] = (),
) -> _Run:
    content = {
        "train_batch_size": task.windows,
        "train_micro_batch_size_per_gpu": task.micro,
        "gradient_clipping": 1.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 6e-4, "weight_decay": 0.1}},
        **settings,
    }
    config, plan, log = (out.with_suffix(f".{ending}") for ending in ("ds.json", "orders.json", "log"))
    config.write_text(json.dumps(content))
    words = [*task.flags(out, config, steps), *flags, "--compile", compile]
    plan.write_text(json.dumps({"arguments": words, **(orders or {})}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = time.monotonic()
    with open(log, "wb") as file:
        processes = [
            subprocess.Popen(
                [sys.executable, __file__, str(plan)],
                env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
                stdout=file,
                stderr=file,
            )
            for rank in range(ranks)
        ]
    try:
        if stop_rank is not None:
            started = _stop(processes[stop_rank], out / "metrics.jsonl")
        codes = [process.wait(300) if number != stop_rank else None for number, process in enumerate(processes)]
    except (subprocess.TimeoutExpired, AssertionError):
        codes = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return _Run(out, codes, time.monotonic() - started, log)


def _stop(process: subprocess.Popen[bytes], metrics: Path) -> float:
    """Stop a rank after some steps, and return the time."""
    end = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 3):
        assert time.monotonic() < end, "no steps are made"
        time.sleep(0.1)
    process.send_signal(signal.SIGSTOP)
    return time.monotonic()


def _rank(plan: dict[str, Any]) -> None:
    """Run one rank: launch/train.py with a slow disk, or a slow first step and an empty compiler cache."""
    if int(os.environ["RANK"]) == plan.get("rank"):
        if "cold_cache" in plan:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["TRITON_CACHE_DIR"] = plan["cold_cache"]
        if "fsync_seconds" in plan:
            fsync = os.fsync

            def slow(descriptor: int) -> None:
                if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".safetensors"):
                    time.sleep(plan["fsync_seconds"])
                fsync(descriptor)

            os.fsync = slow  # type: ignore[assignment]
        if "first_step_seconds" in plan:
            loss = TrainingEngine.loss

            def late(engine: TrainingEngine, batch: Batch) -> Tensor:
                TrainingEngine.loss = loss  # type: ignore[method-assign]
                time.sleep(plan["first_step_seconds"])
                return loss(engine, batch)

            TrainingEngine.loss = late  # type: ignore[assignment, method-assign]
    program = str(ROOT / "launch" / "train.py")
    sys.argv = [program, *plan["arguments"]]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    _rank(json.loads(Path(sys.argv[1]).read_text()))
