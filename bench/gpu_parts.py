"""The parts of bench/gpu_check.py, one function each: what it trains, measures, and requires. In: a scratch folder.

The trainings use kogpt.train.trainer under DeepSpeed, on random tokens, with one rank in this process. The result of a
check is PASS, FAIL, or skipped if this machine cannot run it. It is written at once, so that a crash does not lose it.
"""

import gc
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import contestants
import torch
import train_gpu
from contestants import Task, make_corpus

from kogpt.train import deepspeed_config, deepspeed_file
from kogpt.train.corpora import open_corpora
from kogpt.train.distributed import Ranks
from kogpt.train.options import parse
from kogpt.train.stop_signal import Stop
from kogpt.train.trainer import Trainer

SYNC_CALLS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize")
GOALS = {"small:1024": 0.45, "medium:1024": 0.50}
"""MFU on an H100: llm.c has 41 and 46 %."""


@dataclass
class Part:
    """A part: its settings and its checks."""

    name: str
    scratch: Path
    answer: Path
    toy: bool
    ranks: Ranks
    stop: Stop
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cuda(self) -> bool:
        return self.ranks.device.type == "cuda"

    def check(self, name: str, passed: bool | None, figure: Any) -> None:
        """Record a result. None means that this machine cannot run the check."""
        self.checks.append({"name": name, "passed": passed, "figure": str(figure)})
        self.answer.write_text(json.dumps({"part": self.name, "checks": self.checks}))

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """An exception inside counts as a failed check, and the next checks still run."""
        try:
            yield
        except Exception as error:
            self.check(name, False, f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}")

    def task(self, preset: str, context: int, windows: int, micro: int) -> Task:
        """A shape and a batch; with --toy the smallest ones."""
        if self.toy:
            preset, context, windows, micro = "depth 1", 64, 4, 2
        corpus = self.scratch / "corpus"
        if not corpus.exists():
            make_corpus(corpus, vocab=1024 if self.toy else 50304, ids=40_000 if self.toy else 2_000_000)
        words = preset.split()
        shape = ("--depth", words[1]) if words[0] == "depth" else ("--preset", preset)
        return Task(corpus, self.scratch, shape, context=context, windows=windows, micro=micro)

    def trainer(self, task: Task, out: str, settings: dict[str, Any], *flags: str, compiled: bool = False) -> Trainer:
        """A training of the project with a DeepSpeed file of these settings."""
        path = self.scratch / f"{out}.json"
        batch = {"train_batch_size": task.windows, "train_micro_batch_size_per_gpu": task.micro}
        adam = {"optimizer": {"type": "AdamW", "params": {"lr": 6e-4, "weight_decay": 0.1}}, "gradient_clipping": 1.0}
        path.write_text(json.dumps(batch | adam | settings))
        content = deepspeed_file.read(path)
        # One rank would always get stage 0, so plan for two ranks with half of the batch each.
        ranks = 2 if content["zero_optimization"]["stage"] else 1
        content["train_batch_size"] = ranks * task.windows
        plan = deepspeed_config.plan(path, content, world_size=ranks, device=self.ranks.device.type, has_bf16=True)
        plan = replace(plan, global_batch=task.windows, engine=plan.engine | {"train_batch_size": task.windows})
        options = parse(
            [*task.flags(self.scratch / out, path, 1_000), *flags, "--compile", "on" if compiled else "off"]
        )
        return Trainer(options, plan, open_corpora(options.corpora), self.ranks, self.stop)


def steps(trainer: Trainer, count: int) -> list[float]:
    """The losses of this many steps."""
    found = []
    for _ in range(count):
        record, _ = trainer.train_step()
        found.append(record["loss"])
    return found


def free() -> None:
    """Free the memory of the last training."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def zero(stage: int, precision: str, **more: Any) -> dict[str, Any]:
    """Settings of a DeepSpeed file."""
    key = {"autocast": "torch_autocast"}.get(precision, precision)
    enabled = {} if precision == "fp32" else {key: {"enabled": True}}
    if precision == "autocast":
        enabled[key]["dtype"] = "bfloat16"  # type: ignore[assignment]
    return {"zero_optimization": {"stage": stage, **more}, **enabled}


def paths(part: Part) -> None:
    """A: every ZeRO stage and precision, eager and compiled, gives the losses of fp32, also from step 3 on."""
    task = part.task("depth 4", 256, 16, 8)
    precisions = [*((stage, "bf16") for stage in range(4)), (0, "autocast"), (0, "fp32"), (1, "fp16")]
    kinds: list[tuple[int, str, dict[str, Any]]] = [(*kind, {}) for kind in precisions]
    if part.cuda:
        kinds.append((2, "bf16", {"offload_optimizer": {"device": "cpu"}}))
    reference: list[float] = []
    for compiled in (False, True):
        if part.toy and compiled and not part.cuda:
            part.check("compiled", None, "on a GPU alone: a CPU takes a minute for each path")
            continue
        for stage, precision, more in sorted(kinds, key=lambda kind: kind[1] != "fp32"):
            name = f"ZeRO {stage} {precision}{' off-load' if more else ''}{' compiled' if compiled else ''}"
            if precision == "fp16" and not part.cuda:
                part.check(name, None, "needs a GPU")
                continue
            with part.guarded(name):
                trainer = part.trainer(task, name.replace(" ", "-"), zero(stage, precision, **more), compiled=compiled)
                trainer.prepare()
                losses = steps(trainer, 6)
                reference = reference or losses
                off = max(abs(a - b) for a, b in zip(losses, reference, strict=True))
                part.check(name, off < 2e-2, f"losses within {off:.1e} of fp32")
                del trainer
            free()


def profile(part: Part) -> None:
    """C: kernel launches and waits of a step, and the GPU's utilization."""
    task = part.task("small", 1024, 64, 16)
    for stage in (0, 2):
        with part.guarded(f"profile of ZeRO {stage}"):
            trainer = part.trainer(task, f"profile-{stage}", zero(stage, "bf16"), compiled=part.cuda)
            trainer.prepare()
            steps(trainer, 4)
            activities = [torch.profiler.ProfilerActivity.CPU]
            activities += [torch.profiler.ProfilerActivity.CUDA] if part.cuda else []
            started = time.perf_counter()
            with torch.profiler.profile(activities=activities) as found:
                steps(trainer, 3)
            _judge_profile(part, f"ZeRO {stage}", found, time.perf_counter() - started, task.windows // task.micro)
            del trainer
        free()


def _judge_profile(part: Part, name: str, found: Any, seconds: float, micro_steps: int) -> None:
    counts = {event.key: event.count for event in found.key_averages()}
    reads = counts.get("aten::_local_scalar_dense", 0) / 3
    on_gpu = reads <= 2 if part.cuda else None  # the fused Adam of CPUs reads its step count once per parameter
    part.check(f"{name}: numbers read from the device", on_gpu, f"{reads:.1f} a step of {micro_steps} micro-batches")
    if not part.cuda:
        return
    waits = sum(counts.get(call, 0) for call in SYNC_CALLS) / 3
    part.check(f"{name}: waits for the device", waits <= 2, f"{waits:.1f} in a step of {micro_steps} micro-batches")
    launches = sum(count for key, count in counts.items() if "LaunchKernel" in key) / 3
    busy = sum(event.self_device_time_total for event in found.key_averages()) / 1e6 / seconds
    part.check(f"{name}: the device is busy", busy >= 0.95, f"{busy:.1%}, {launches:.0f} launches a step")


def speed(part: Part) -> None:
    """D: tokens/s and MFU, compared with a plain loop and transformers."""
    options = train_gpu.Options()
    if part.toy:
        options = train_gpu.Options(shapes=("tiny:64",), ids=256, steps=1, blocks=2, eager=not part.cuda)
    rows = train_gpu.measure(options, part.scratch)["rows"]
    rate = {(row["shape"], row["contestant"]): row.get("tokens_per_s") for row in rows}
    for row in rows:
        name = f"{row['shape']}, {row['contestant']}"
        figure = row.get("error") or f"{row['tokens_per_s']:,.0f} tokens/s, MFU {row['mfu'] or 'unknown'}"
        missing = "ModuleNotFoundError" in row.get("error", "")
        part.check(name, None if missing else "error" not in row, figure)
    for shape in options.shapes:
        ours, plain, theirs = (rate[shape, name] for name in ("ours, ZeRO 0", "plain loop", "transformers"))
        for name, other, goal in (("a plain loop", plain, 1.0), ("transformers", theirs, 1.1)):
            if ours and other:
                passed = ours / other >= goal - 0.01 if part.cuda else None
                part.check(f"{shape}: ours against {name}", passed, f"{ours / other:.2f}, goal {goal}")
    _judge_mfu(part, rows)


def _judge_mfu(part: Part, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        goal = GOALS.get(row["shape"])
        if goal and row["contestant"] == "ours, ZeRO 0" and row.get("mfu"):
            passed = row["mfu"] >= goal if "H100" in row["device"] else None
            part.check(f"{row['shape']}: MFU", passed, f"{row['mfu']:.1%}, goal on an H100 {goal:.0%}")


def memory(part: Part) -> None:
    """E: the memory estimate, compared with the allocated memory."""
    for stage, precision in ((0, "bf16"), (0, "fp32"), (2, "bf16"), (3, "bf16")):
        name = f"memory of ZeRO {stage} {precision}"
        if not part.cuda:
            part.check(name, None, "needs a GPU")
            continue
        with part.guarded(name):
            task = part.task("small", 1024, 16, 8)
            trainer = part.trainer(task, f"memory-{stage}-{precision}", zero(stage, precision))
            trainer.prepare()
            steps(trainer, 3)
            used, estimated = torch.cuda.max_memory_allocated(), trainer.memory.total
            off = estimated / used - 1
            passed = abs(off) <= 0.10 if not part.toy else None
            part.check(
                name, passed, f"estimated {estimated / 2**30:.2f} GiB, allocated {used / 2**30:.2f} ({off:+.0%})"
            )
            del trainer
        free()


def resume(part: Part) -> None:
    """B: which metrics of a resumed run are bit-identical to those of an uninterrupted one."""
    task = part.task("depth 4", 256, 16, 8)
    for stage, precision in ((0, "fp32"), (0, "bf16"), (2, "bf16"), (3, "bf16")):
        name = f"resume of ZeRO {stage} {precision}"
        with part.guarded(name):
            whole, again = f"whole-{stage}-{precision}", f"again-{stage}-{precision}"
            settings = zero(stage, precision)
            flags = ("--steps", "8", "--save-every", "4", "--keep", "9")
            part.trainer(task, whole, settings, *flags).train()
            shutil.copytree(part.scratch / whole, part.scratch / again)
            shutil.rmtree(part.scratch / again / "checkpoints" / "step-00000008")
            part.trainer(task, again, settings, *flags).train()
            losses = [
                [json.loads(line)["loss"] for line in (part.scratch / run / "metrics.jsonl").read_text().splitlines()]
                for run in (whole, again)
            ]
            off = max(abs(a - b) for a, b in zip(*losses, strict=True))
            exact = "bit for bit" if losses[0] == losses[1] else f"losses within {off:.1e}"
            part.check(name, len(losses[1]) == 8 and off < 1e-2, exact)
        free()


def kernels(part: Part) -> None:
    """F: which attention kernel runs, and whether a trained run can be evaluated, generate, and be exported."""
    import kogpt
    from kogpt.eval.run import evaluate_run
    from kogpt.hub.export import export_model

    task = part.task("depth 4", 256, 16, 8)
    with part.guarded("attention keeps no T x T matrix"):
        trainer = part.trainer(task, "kernels", zero(0, "bf16"), "--steps", "2")
        trainer.prepare()
        with torch.profiler.profile() as found:
            steps(trainer, 1)
        names = {event.key for event in found.key_averages() if "_scaled_dot_product" in event.key}
        part.check(
            "attention keeps no T x T matrix", bool(names) and not any("math" in n for n in names), sorted(names)
        )
        del trainer
    free()
    with part.guarded("training to its end"):
        part.check("training to its end", part.trainer(task, "run", zero(0, "bf16"), "--steps", "2").train() == 0, "")
    run = part.scratch / "run"
    with part.guarded("evaluate"):
        scored = evaluate_run(run, corpus=task.corpus)["bits_per_char"]
        part.check("evaluate", True, f"{next(iter(scored.values()))['bits_per_char']:.3f} bits per character")
    with part.guarded("generate"):
        text = kogpt.load(run).generate("w1 w2", max_new_tokens=8, greedy=True)
        part.check("generate", True, f"{len(text)} characters")
    try:
        import transformers  # noqa: F401
    except ModuleNotFoundError:
        part.check("export", None, "transformers is not installed")
        return
    with part.guarded("export"):
        export_model(run, part.scratch / "exported")
        part.check("export", (part.scratch / "exported" / "model.safetensors").is_file(), "")


def checkpoint(part: Part) -> None:
    """G: the seconds that a save and a restore take."""
    task = part.task("medium", 1024, 8, 8)
    for stage in (0, 2):
        with part.guarded(f"checkpoint of ZeRO {stage}"):
            flags = ("--steps", "2", "--save-every", "1")
            run = f"saved-{stage}"
            started = time.perf_counter()
            part.trainer(task, run, zero(stage, "bf16"), *flags).train()
            trained = time.perf_counter() - started
            free()
            again = part.trainer(task, run, zero(stage, "bf16"), "--steps", "3")
            started = time.perf_counter()
            again.prepare()
            figure = (
                f"two steps with two saves {trained:.1f} s, ready again after {time.perf_counter() - started:.1f} s"
            )
            part.check(f"checkpoint of ZeRO {stage}", again.step == 2, figure)
            del again
        free()


PARTS: dict[str, Callable[[Part], None]] = {
    "paths": paths,
    "profile": profile,
    "speed": speed,
    "memory": memory,
    "resume": resume,
    "kernels": kernels,
    "checkpoint": checkpoint,
}


def main() -> None:
    name, scratch, answer, toy = sys.argv[1:]
    Path(scratch).mkdir(parents=True)
    if name == "pair":
        import gpu_pair

        gpu_pair.main(Path(scratch), Path(answer), toy=toy == "1")
        return
    if name == "speed":  # each contestant has its own process and port
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        ranks, stop = Ranks(0, 1, 0, 1, device), Stop()
        for variable in ("RANK", "MASTER_PORT"):
            del os.environ[variable]
    else:
        ranks, stop = contestants.start()
    PARTS[name](Part(name, Path(scratch), Path(answer), toy == "1", ranks, stop))


if __name__ == "__main__":
    main()
