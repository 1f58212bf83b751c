"""The parts of bench/gpu_check.py, one function each: what it trains, measures, and requires. In: a `Part`."""

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contestants
import torch
import train_gpu
from contestants import Task
from gpu_part import Part, free, steps, zero

from kogpt.train.distributed import Ranks
from kogpt.train.stop_signal import Stop

SYNC_CALLS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize")
GOALS = {"small:1024": 0.45, "medium:1024": 0.50}
"""MFU on an H100: llm.c has 41 and 46 %."""
MUON: dict[str, Any] = {"optimizer": {"type": "Muon", "params": {"lr": 0.02}}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {"gpt2": ("", {}), "qwen3": ("qwen3 Muon ", MUON)}
"""Of an architecture: what the names of its checks begin with, and its settings besides those of `zero`."""


def paths(part: Part) -> None:
    """A: every ZeRO stage and precision, eager and compiled, gives the losses of fp32, also from step 3 on."""
    task = part.task("depth 4", 256, 16, 8)
    precisions = [*((stage, "bf16") for stage in range(4)), (0, "autocast"), (0, "fp32"), (1, "fp16")]
    kinds: list[tuple[int, str, dict[str, Any]]] = [(*kind, {}) for kind in precisions]
    if part.cuda:
        kinds.append((2, "bf16", {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}))
    _compare(part, task, kinds)


def recipe(part: Part) -> None:
    """A as well: every stage with qwen3 and Muon, and the share of a step that Muon's update takes."""
    task = part.task("depth 4", 256, 16, 8, arch="qwen3")
    _compare(part, task, [(0, "fp32", MUON), *((stage, "bf16", MUON) for stage in range(4))], "qwen3 Muon ")
    task = part.task("depth 12", 1024, 64, 16, arch="qwen3")
    with part.guarded("update of Muon"):
        times = {}
        for name, more in (("AdamW", {}), ("Muon", MUON)):
            trainer = part.trainer(task, f"update-{name}", zero(0, "bf16") | more, compiled=part.cuda)
            trainer.prepare()
            steps(trainer, 4)
            times[name] = statistics.median(trainer.train_step()[0]["step_s"] for _ in range(7))
            del trainer
            free()
        share = times["Muon"] / times["AdamW"] - 1
        part.check("update of Muon", share <= 0.05 if part.cuda else None, f"{share:+.1%} of a step with AdamW")


def _compare(part: Part, task: Task, kinds: list[tuple[int, str, dict[str, Any]]], label: str = "") -> None:
    """Train six steps in each kind (stage, precision, settings), eager and compiled, and compare with fp32's losses."""
    reference: list[float] = []
    for compiled in (False, True):
        if part.toy and compiled and not part.cuda:
            part.check(f"{label}compiled", None, "on a GPU alone: a CPU takes a minute for each path")
            continue
        for stage, precision, more in sorted(kinds, key=lambda kind: kind[1] != "fp32"):
            off_load = " off-load" if "zero_optimization" in more else ""
            name = f"{label}ZeRO {stage} {precision}{off_load}{' compiled' if compiled else ''}"
            if precision == "fp16" and not part.cuda:
                part.check(name, None, "needs a GPU")
                continue
            with part.guarded(name):
                trainer = part.trainer(task, name.replace(" ", "-"), zero(stage, precision) | more, compiled=compiled)
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
    kinds = [("gpt2", 0, "bf16"), ("gpt2", 0, "fp32"), ("gpt2", 2, "bf16"), ("gpt2", 3, "bf16"), ("qwen3", 0, "bf16")]
    for arch, stage, precision in kinds:
        name = f"memory of {arch}, ZeRO {stage} {precision}"
        if not part.cuda:
            part.check(name, None, "needs a GPU")
            continue
        with part.guarded(name):
            task = part.task("depth 12", 1024, 16, 8, arch)
            settings = zero(stage, precision) | (MUON if arch == "qwen3" else {})
            trainer = part.trainer(task, name.replace(" ", "-").replace(",", ""), settings)
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
    for stage, precision in ((0, "fp32"), (0, "bf16"), (2, "bf16"), (3, "bf16")):
        _resume(part, "gpt2", stage, precision)
    _resume(part, "qwen3", 2, "bf16")


def _resume(part: Part, arch: str, stage: int, precision: str) -> None:
    task = part.task("depth 4", 256, 16, 8, arch)
    label, more = KINDS[arch]
    name = f"{label}resume of ZeRO {stage} {precision}"
    with part.guarded(name):
        whole, again = f"whole-{arch}-{stage}-{precision}", f"again-{arch}-{stage}-{precision}"
        settings = zero(stage, precision) | more
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
    with part.guarded("attention within documents"):
        _attention_within_documents(part)
    for arch in KINDS:
        _kernels(part, arch)


def _attention_within_documents(part: Part) -> None:
    """Time of attention within four documents a row, by their borders or by a mask, compared with the whole row."""
    from kogpt.model.attention import attend, document_mask

    shape, repeats = ((2, 2, 64, 64), 1) if part.toy else ((16, 12, 1024, 64), 10)
    rows, _, length, size = shape
    device, dtype = part.ranks.device, torch.bfloat16
    query, key, value = (torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for _ in range(3))
    borders = torch.arange(0, rows * length + 1, length // 4, dtype=torch.int32, device=device)
    embedded = torch.empty(rows, length, 0, dtype=dtype, device=device)
    masks = {"row": None, "documents": document_mask(borders, embedded, size)}
    masks["mask"] = document_mask(borders, embedded, size, dropout=1.0)  # no kernel without a mask has dropout
    seconds: dict[str, float] = {}
    for _ in range(2):  # the first round warms up
        for name, mask in masks.items():
            started = time.perf_counter()
            for _ in range(repeats):
                attend(query, key, value, mask).sum().backward()
            if part.cuda:
                torch.cuda.synchronize()
            seconds[name] = time.perf_counter() - started
    by_borders = masks["documents"] is borders
    own, masked = (seconds[name] / seconds["row"] for name in ("documents", "mask"))
    passed = by_borders and own <= 1.1 if part.cuda and torch.cuda.get_device_capability() >= (8, 0) else None
    how = "by their borders" if by_borders else "by a mask"
    part.check("attention within documents", passed, f"{how}: {own:.2f} x the row's time; with a mask {masked:.2f} x")


def _kernels(part: Part, arch: str) -> None:
    """Qwen3's tokens attend within their article. Where that takes a mask, itself T x T, only the plain formula is
    ruled out."""
    import kogpt
    from kogpt.eval.run import evaluate_run
    from kogpt.hub.export import export_model

    task = part.task("depth 4", 256, 16, 8, arch)
    label, more = KINDS[arch]
    settings = zero(0, "bf16") | more
    name = f"{label}attention {'does not run by the plain formula' if more else 'keeps no T x T matrix'}"
    with part.guarded(name):
        trainer = part.trainer(task, f"kernels-{arch}", settings, "--steps", "2")
        trainer.prepare()
        with torch.profiler.profile() as found:
            steps(trainer, 1)
        names = {e.key for e in found.key_averages() if "_scaled_dot_product" in e.key or "_varlen_attn" in e.key}
        part.check(name, bool(names) and not any("math" in n for n in names), sorted(names))
        del trainer
    free()
    run = part.scratch / f"run-{arch}"
    name = f"{label}training to its end"
    with part.guarded(name):
        part.check(name, part.trainer(task, run.name, settings, "--steps", "2").train() == 0, "")
    with part.guarded(f"{label}evaluate"):
        scored = evaluate_run(run, corpus=task.corpus)["bits_per_char"]
        part.check(f"{label}evaluate", True, f"{next(iter(scored.values()))['bits_per_char']:.3f} bits per character")
    with part.guarded(f"{label}generate"):
        text = kogpt.load(run).generate("w1 w2", max_new_tokens=8, greedy=True)
        part.check(f"{label}generate", True, f"{len(text)} characters")
    try:
        import transformers  # noqa: F401
    except ModuleNotFoundError:
        part.check(f"{label}export", None, "transformers is not installed")
        return
    with part.guarded(f"{label}export"):
        export_model(run, part.scratch / f"exported-{arch}")
        part.check(f"{label}export", (part.scratch / f"exported-{arch}" / "model.safetensors").is_file(), "")


def checkpoint(part: Part) -> None:
    """G: the seconds that a save and a restore take."""
    for arch, preset, stage in (("gpt2", "medium", 0), ("gpt2", "medium", 2), ("qwen3", "depth 18", 2)):
        task = part.task(preset, 1024, 8, 8, arch)
        label, more = KINDS[arch]
        name = f"{label}checkpoint of ZeRO {stage}"
        with part.guarded(name):
            flags = ("--steps", "2", "--save-every", "1")
            run, settings = f"saved-{arch}-{stage}", zero(stage, "bf16") | more
            started = time.perf_counter()
            part.trainer(task, run, settings, *flags).train()
            trained = time.perf_counter() - started
            free()
            again = part.trainer(task, run, settings, "--steps", "3")
            started = time.perf_counter()
            again.prepare()
            figure = (
                f"two steps with two saves {trained:.1f} s, ready again after {time.perf_counter() - started:.1f} s"
            )
            part.check(name, again.step == 2, figure)
            del again
        free()


PARTS: dict[str, Callable[[Part], None]] = {
    "paths": paths,
    "recipe": recipe,
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
