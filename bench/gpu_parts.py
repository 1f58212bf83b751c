"""The parts of bench/gpu_check.py, one function each: does what is trained work? In: a `Part`.

What is measured is in bench/gpu_figures.py.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contestants
import gpu_figures
import torch
from contestants import Task, half
from gpu_part import KINDS, MUON, Part, steps, zero

from kogpt.common.numerics import be_deterministic
from kogpt.train.distributed import Ranks
from kogpt.train.stop_signal import Stop


def paths(part: Part) -> None:
    """A: every ZeRO stage and precision, eager and compiled, gives the losses of fp32, also from step 3 on."""
    task = part.task("depth 4", 256, 16, 8)
    precisions = [*((stage, "bf16") for stage in range(4)), (0, "autocast"), (0, "fp32"), (1, "fp16")]
    kinds: list[tuple[int, str, dict[str, Any]]] = [(*kind, {}) for kind in precisions]
    if part.cuda:
        kinds.append((2, "bf16", {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}))
    _compare(part, task, kinds)


def recipe(part: Part) -> None:
    """A as well: every stage with qwen3 and Muon; and what Muon and attention within articles cost in a step."""
    task = part.task("depth 4", 256, 16, 8, arch="qwen3")
    _compare(part, task, [(0, "fp32", MUON), *((stage, "bf16", MUON) for stage in range(4))], "qwen3 Muon ")
    with part.guarded("update of Muon"):
        gpu_figures.costs_of_the_recipe(part)


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
            device = part.ranks.device
            if (precision == "fp16" and not part.cuda) or (precision == "autocast" and half(device) != torch.bfloat16):
                part.check(name, None, "needs a GPU" if precision == "fp16" else "needs bf16")
                continue
            with part.guarded(name):
                losses, trained = _six_steps(part, task, name, zero(stage, precision) | more, compiled)
                reference = reference or losses
                off = max(abs(a - b) for a, b in zip(losses, reference, strict=True))
                part.check(name, off < 2e-2, f"trained in {trained}, losses within {off:.1e} of fp32")


def _six_steps(part: Part, task: Task, name: str, settings: dict[str, Any], compiled: bool) -> tuple[list[float], str]:
    """The losses of six steps, and the stage and precision that the plan gave them on this machine."""
    trainer = part.trainer(task, name.replace(" ", "-"), settings, compiled=compiled)
    trainer.prepare()
    return steps(trainer, 6), f"{trainer.plan.precision} at stage {trainer.plan.stage}"


def resume(part: Part) -> None:
    """B: which metrics of a resumed run are bit-identical to those of an uninterrupted one."""
    with part.guarded("resume --deterministic"):
        be_deterministic()  # before the GPU computes anything
        _resume(part, "qwen3", 0, "bf16", compiled=part.cuda, deterministic=True)
    torch.use_deterministic_algorithms(False)
    for stage, precision in ((0, "fp32"), (0, "bf16"), (2, "bf16"), (3, "bf16")):
        _resume(part, "gpt2", stage, precision)
    _resume(part, "qwen3", 2, "bf16")


def _resume(
    part: Part, arch: str, stage: int, precision: str, *, compiled: bool = False, deterministic: bool = False
) -> None:
    task = part.task("depth 4", 256, 16, 8, arch)
    label, more = KINDS[arch]
    name = f"{label}resume of ZeRO {stage} {precision}{' --deterministic' if deterministic else ''}"
    with part.guarded(name):
        whole, again = (f"{kind}-{arch}-{stage}-{precision}-{deterministic}" for kind in ("whole", "again"))
        settings = zero(stage, precision) | more
        flags = ("--steps", "8", "--save-every", "4", "--keep", "9")
        part.trainer(task, whole, settings, *flags, compiled=compiled).train()
        shutil.copytree(part.scratch / whole, part.scratch / again)
        shutil.rmtree(part.scratch / again / "checkpoints" / "step-00000008")
        part.trainer(task, again, settings, *flags, compiled=compiled).train()
        losses = [
            [json.loads(line)["loss"] for line in (part.scratch / run / "metrics.jsonl").read_text().splitlines()]
            for run in (whole, again)
        ]
        off = max(abs(a - b) for a, b in zip(*losses, strict=True))
        exact = "bit for bit" if losses[0] == losses[1] else f"losses within {off:.1e}"
        part.check(name, len(losses[1]) == 8 and off <= (0.0 if deterministic else 1e-2), exact)


def kernels(part: Part) -> None:
    """F: which attention kernel runs, and whether a trained run can be evaluated, generate, and be exported."""
    with part.guarded("attention within documents"):
        gpu_figures.attention_within_documents(part)
    for arch in KINDS:
        _kernels(part, arch)


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
        names = _attention_kernels(part, task, f"kernels-{arch}", settings)
        part.check(name, bool(names) and not any("math" in n for n in names), sorted(names))
    run = part.scratch / f"run-{arch}"
    name = f"{label}training to its end"
    with part.guarded(name):
        part.check(name, part.trainer(task, run.name, settings, "--steps", "2").train() == 0, "")
    with part.guarded(f"{label}evaluate"):
        scored = evaluate_run(run, corpus=task.corpus)["bits_per_char"]
        part.check(f"{label}evaluate", True, f"{next(iter(scored.values()))['bits_per_char']:.3f} bits per character")
    with part.guarded(f"{label}generate"):
        text = kogpt.load(run).generate("w1 w2", max_new_tokens=8, greedy=True)
        rates = gpu_figures.rates_of_generation(part, arch)
        part.check(f"{label}generate", len(text) >= len("w1 w2"), rates)
    try:
        import transformers  # noqa: F401
    except ModuleNotFoundError:
        part.check(f"{label}export", None, "transformers is not installed")
        return
    with part.guarded(f"{label}export"):
        export_model(run, part.scratch / f"exported-{arch}")
        part.check(f"{label}export", (part.scratch / f"exported-{arch}" / "model.safetensors").is_file(), "")


def _attention_kernels(part: Part, task: Task, out: str, settings: dict[str, Any]) -> set[str]:
    """The attention operations of a step; not of the first one, which tries what the GPU has."""
    trainer = part.trainer(task, out, settings)
    trainer.prepare()
    steps(trainer, 1)
    with torch.profiler.profile() as found:
        steps(trainer, 1)
    return {e.key for e in found.key_averages() if "_scaled_dot_product" in e.key or "_varlen_attn" in e.key}


def checkpoint(part: Part) -> None:
    """G: the seconds that a save and a restore take."""
    for arch, preset, stage in (("gpt2", "medium", 0), ("gpt2", "medium", 2), ("qwen3", "depth 18", 2)):
        label, more = KINDS[arch]
        name = f"{label}checkpoint of ZeRO {stage}"
        with part.guarded(name):
            task = part.task(preset, 1024, 8, 8, arch)
            _save_and_restore(part, name, task, f"saved-{arch}-{stage}", zero(stage, "bf16") | more)


def _save_and_restore(part: Part, name: str, task: Task, run: str, settings: dict[str, Any]) -> None:
    started = time.perf_counter()
    part.trainer(task, run, settings, "--steps", "2", "--save-every", "1").train()
    trained = time.perf_counter() - started
    again = part.trainer(task, run, settings, "--steps", "3")
    started = time.perf_counter()
    again.prepare()
    ready = time.perf_counter() - started
    part.check(name, again.step == 2, f"two steps with two saves {trained:.1f} s, ready again after {ready:.1f} s")


PARTS: dict[str, Callable[[Part], None]] = {
    "paths": paths,
    "kernels": kernels,
    "memory": gpu_figures.memory,
    "profile": gpu_figures.profile,
    "recipe": recipe,
    "speed": gpu_figures.speed,
    "resume": resume,
    "checkpoint": checkpoint,
    "sizes": gpu_figures.sizes,
}


def main() -> None:
    name, scratch, answer, toy = sys.argv[1:]
    Path(scratch).mkdir(parents=True)
    if name == "pair":
        import gpu_pair

        gpu_pair.main(Path(scratch), Path(answer), toy=toy == "1")
        return
    if name in ("speed", "sizes"):  # each contestant has its own process and port
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        ranks, stop = Ranks(0, 1, 0, 1, device), Stop()
        for variable in ("RANK", "MASTER_PORT"):
            del os.environ[variable]
    else:
        ranks, stop = contestants.start()
    PARTS[name](Part(name, Path(scratch), Path(answer), toy == "1", ranks, stop))


if __name__ == "__main__":
    main()
