"""The parts of bench/gpu_check.py that measure: utilization, speed, memory, and single costs. In: a `Part`."""

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import train_gpu
from contestants import half
from gpu_part import KINDS, MUON, Part, steps, zero
from gpu_profile import profiled

from kogpt.generate.decode import generate
from kogpt.generate.sampling import Sampling
from kogpt.model import registry
from kogpt.train.gpu_peaks import peak_flops

GOALS = {"small:1024": 0.45, "medium:1024": 0.50}
"""MFU on an H100: llm.c has 41 and 46 %. It is required of GPUs with the same peak."""
THREE = ("plain loop", "ours, ZeRO 0", "transformers")


def profile(part: Part) -> None:
    """C: kernel launches and waits of a step, and the GPU's utilization."""
    for stage in (0, 2):
        with part.guarded(f"profile of ZeRO {stage}"):
            _profile(part, stage)


def _profile(part: Part, stage: int) -> None:
    task = part.task("small", 1024, 64, 16)
    trainer = part.trainer(task, f"profile-{stage}", zero(stage, "bf16"), compiled=part.cuda)
    trainer.prepare()
    steps(trainer, 3)
    found = profiled(lambda count: steps(trainer, count), 3)
    name, batches = f"ZeRO {stage}", f"a step of {trainer.plan.grad_accum} micro-batches"
    on_gpu = found.reads <= 2 if part.cuda else None  # the fused Adam of CPUs reads its step count once per parameter
    part.check(f"{name}: numbers read from the device", on_gpu, f"{found.reads:.1f} in {batches}")
    if not part.cuda:
        return
    part.check(f"{name}: waits for the device", found.waits <= 2, f"{found.waits:.1f} in {batches}")
    figure = f"{found.busy:.1%} of {1000 * found.seconds:.0f} ms, {found.launches:.0f} launches a step"
    part.check(f"{name}: the device is busy", found.busy >= 0.95, figure)


def memory(part: Part) -> None:
    """E: the memory estimate, compared with the allocated memory."""
    kinds = [("gpt2", 0, "bf16"), ("gpt2", 0, "fp32"), ("gpt2", 2, "bf16"), ("gpt2", 3, "bf16"), ("qwen3", 0, "bf16")]
    for arch, stage, precision in kinds:
        name = f"memory of {arch}, ZeRO {stage} {precision}"
        with part.guarded(name):
            _memory(part, name, arch, stage, precision)


def _memory(part: Part, name: str, arch: str, stage: int, precision: str) -> None:
    """A training's own memory: what earlier ones left does not count."""
    task = part.task("depth 12", 1024, 16, 8, arch)
    trainer = part.trainer(task, name.replace(" ", "-").replace(",", ""), zero(stage, precision) | KINDS[arch][1])
    left = torch.cuda.memory_allocated() if part.cuda else 0
    trainer.prepare()
    steps(trainer, 3)
    if not part.cuda:
        part.check(name, None, "is counted on a GPU alone")
        return
    used, estimated = torch.cuda.max_memory_allocated() - left, trainer.memory.total
    off = estimated / used - 1
    passed = abs(off) <= 0.10 if not part.toy else None
    figure = f"estimated {estimated / 2**30:.2f} GiB, allocated {used / 2**30:.2f} ({off:+.0%})"
    part.check(name, passed, f"{figure}; {left / 2**30:.2f} GiB were left before")


def speed(part: Part) -> None:
    """D: tokens/s and MFU of one shape, compared with a plain loop and transformers."""
    _race(part, "tiny:64" if part.toy else "small:1024", (*THREE, "plain loop, again"))


def sizes(part: Part) -> None:
    """D as well: other shapes, and what ZeRO costs where nothing is partitioned."""
    for shape in () if part.toy else ("medium:1024", "small:256"):
        _race(part, shape, THREE)
    _race(part, "tiny:64" if part.toy else "small:1024", [f"ours, ZeRO {stage}" for stage in (1, 2, 3)])


def _race(part: Part, shape: str, names: Sequence[str]) -> None:
    options = train_gpu.Options(shapes=(shape,))
    if part.toy:
        options = train_gpu.Options(shapes=(shape,), ids=256, steps=1, blocks=2, eager=not part.cuda)
    judge_rows(part, train_gpu.measured(options, part.scratch, names))


def judge_rows(part: Part, rows: Iterator[dict[str, Any]]) -> None:
    """Check each row as it comes, and ours against the other ones as soon as both are known."""
    rate: dict[str, float] = {}
    for row in rows:
        shape, name = row["shape"], row["contestant"]
        if "error" in row:
            skipped = row["error"].startswith(("ModuleNotFoundError", "OutOfMemoryError"))
            part.check(f"{shape}, {name}", None if skipped else False, row["error"].splitlines()[0][:200])
            continue
        rate[name] = row["tokens_per_s"]
        share = "unknown" if row["mfu"] is None else f"{row['mfu']:.1%}"
        peak = "" if row["peak_gib"] is None else f", {row['peak_gib']:.1f} GiB"
        part.check(f"{shape}, {name}", True, f"{rate[name]:,.0f} tokens/s, MFU {share}{peak}")
        if name == "ours, ZeRO 0":
            _judge_mfu(part, row)
        for other, goal in (("plain loop", 1.0), ("transformers", 1.1)):
            if name in (other, "ours, ZeRO 0") and {other, "ours, ZeRO 0"} <= rate.keys():
                times = rate["ours, ZeRO 0"] / rate[other]
                passed = times >= goal - 0.01 if part.cuda else None
                part.check(f"{shape}: ours against {other}", passed, f"{times:.2f}, goal {goal}")


def _judge_mfu(part: Part, row: dict[str, Any]) -> None:
    goal = GOALS.get(row["shape"])
    if goal is None or row["mfu"] is None:
        return
    like_an_h100 = peak_flops(row["device"], "bf16") == peak_flops("NVIDIA H100 80GB HBM3", "bf16")
    passed = row["mfu"] >= goal if like_an_h100 else None
    part.check(f"{row['shape']}: MFU", passed, f"{row['mfu']:.1%}, goal on an H100 {goal:.0%}")


def costs_of_the_recipe(part: Part) -> None:
    """What Muon adds to a step with AdamW, and attention within articles to one with attention within the window."""
    times = {
        "AdamW": _step_seconds(part, "AdamW", {}),
        "Muon": _step_seconds(part, "Muon", MUON),
        "window": _step_seconds(part, "window", MUON, "--attend", "window"),
    }
    share = times["Muon"] / times["AdamW"] - 1
    part.check("update of Muon", share <= 0.05 if part.cuda else None, f"{share:+.1%} of a step with AdamW")
    share = times["Muon"] / times["window"] - 1
    figure = f"{share:+.1%} of a step with attention within the window"
    part.check("attention within articles", True if part.cuda else None, figure)


def _step_seconds(part: Part, name: str, settings: dict[str, Any], *flags: str) -> float:
    """The median time of a step of the default architecture, after four steps."""
    task = part.task("depth 12", 1024, 64, 16, arch="qwen3")
    trainer = part.trainer(task, f"costs-{name}", zero(0, "bf16") | settings, *flags, compiled=part.cuda)
    trainer.prepare()
    steps(trainer, 4)
    return statistics.median(trainer.train_step()[0]["step_s"] for _ in range(7))


def attention_within_documents(part: Part) -> None:
    """Time of attention within four documents a row, by their borders or by a mask, compared with the whole row."""
    from kogpt.model.attention import attend, document_mask

    shape, repeats = ((2, 2, 64, 64), 1) if part.toy else ((16, 12, 1024, 64), 10)
    rows, _, length, size = shape
    device, dtype = part.ranks.device, half(part.ranks.device)
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


def rates_of_generation(part: Part, arch: str) -> str:
    """Tokens/s of greedy generation for one prompt and for eight together, as `kogpt generate` works on this device."""
    model = registry.build(part.task("depth 12", 1024, 16, 8, arch).model).to(part.ranks.device).eval()
    rates = []
    for rows in (1, 8):
        for count in (4, 8 if part.toy else 128):  # the first ones warm up
            started = time.perf_counter()
            made = list(generate(model, [[7, 8, 9]] * rows, Sampling(max_new_tokens=count, greedy=True)))
            seconds = time.perf_counter() - started
        rates.append(len(made) * rows / seconds)
    return (
        f"{rates[0]:,.0f} tokens/s alone, {rates[1]:,.0f} for eight prompts, {model.config.parameter_count / 1e6:.0f}M"
    )
