"""The DeepSpeed file: read, checked, and fitted to this machine. In: a path, the number of ranks. Out: `EnginePlan`.

The file is the one place for batch sizes, ZeRO stage, precision, clipping and the optimizer. Where DeepSpeed would
ignore an unknown key or take "auto" for something else, we refuse. `train_batch_size` is the promise (it decides what
is learnt); `train_micro_batch_size_per_gpu` is an upper limit for what one rank holds at once; accumulation follows.

The optimizer is torch's AdamW, fused where it runs (CPU included), so that nothing is ever compiled.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kogpt.common.errors import UserError

Precision = Literal["fp32", "bf16", "fp16", "autocast"]

KNOWN = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16",
    "fp16",
    "torch_autocast",
    "zero_optimization",
    "zero_force_ds_cpu_optimizer",
    "optimizer",
    "steps_per_print",
    "communication_data_type",
    "aio",
    "comms_logger",
    "flops_profiler",
    "wall_clock_breakdown",
}
OURS = {
    "scheduler": "the learning rate's course is set by --schedule, --warmup, --decay and --min-lr-ratio",
    "wandb": "W&B is set by --wandb",
    "checkpoint": "checkpoints are this program's own",
    "load_universal": "every checkpoint fits every number of ranks",
}
ADAM_DEFAULTS = {"lr": 6e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
FP16 = {"enabled": True, "loss_scale": 0, "initial_scale_power": 12, "loss_scale_window": 500}


@dataclass(frozen=True)
class EnginePlan:
    """What the file says, after fitting it to the machine; `engine` is the dict for deepspeed.initialize."""

    path: Path
    stage: Literal[0, 1, 2, 3]
    precision: Precision
    offload: bool
    global_batch: int
    micro_batch: int
    grad_accum: int
    clip: float
    adam: dict[str, Any]
    engine: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """Stage 0 without half-precision weights: torch's own optimizer, no wrapper of DeepSpeed's around it."""
        return self.stage == 0 and self.precision in ("fp32", "autocast")


def read(path: Path) -> dict[str, Any]:
    """The file's content, or a `UserError` with all that is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--deepspeed-config {path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"--deepspeed-config {path} holds no JSON object.")
    if problems := [f"{path}: {problem}" for problem in _problems(content)]:
        raise UserError("\n".join(problems))
    return content


def _problems(content: dict[str, Any]) -> list[str]:
    problems = []
    for key in content:
        if key in OURS:
            problems.append(f'remove "{key}": {OURS[key]}.')
        elif key not in KNOWN:
            problems.append(f'the key "{key}" is unknown; known are {", ".join(sorted(KNOWN))}.')
    problems += [f'"{place}" is "auto"; write the value.' for place in _autos(content)]
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu"):
        value = content.get(key)
        if value != "auto" and (not isinstance(value, int) or value < 1):
            problems.append(f'"{key}" is {json.dumps(value)}; give a whole number of sequences.')
    kind = content.get("optimizer", {}).get("type", "AdamW")
    if kind != "AdamW":
        problems.append(f'"optimizer.type" is "{kind}"; only AdamW is offered.')
    if unknown := set(content.get("optimizer", {}).get("params", {})) - {*ADAM_DEFAULTS, "torch_adam"}:
        problems.append(f'"optimizer.params" has unknown keys: {", ".join(sorted(unknown))}.')
    on = [key for key in ("bf16", "fp16", "torch_autocast") if content.get(key, {}).get("enabled")]
    if len(on) > 1:
        problems.append(f"{' and '.join(json.dumps(key) for key in on)} are both enabled; enable one.")
    stage = content.get("zero_optimization", {}).get("stage", 0)
    if stage not in (0, 1, 2, 3):
        problems.append(f'"zero_optimization.stage" is {json.dumps(stage)}; give 0, 1, 2 or 3.')
    if on == ["fp16"] and stage == 0:
        problems.append('"fp16" is enabled with "zero_optimization.stage" 0; use stage 1 (the same on one rank).')
    return problems


def _autos(content: Any, place: str = "") -> list[str]:
    if isinstance(content, dict):
        return [found for key, value in content.items() for found in _autos(value, f"{place}.{key}".lstrip("."))]
    return [place] if content == "auto" else []


def plan(path: Path, content: dict[str, Any], *, world_size: int, device: str, has_bf16: bool) -> EnginePlan:
    """Fit the file to the machine: precision, micro-batch, accumulation; what was changed is in `notes`."""
    engine = copy.deepcopy(content)
    notes: list[str] = []
    zero = engine.setdefault("zero_optimization", {"stage": 0})
    precision = _fit_precision(engine, device, has_bf16, notes)
    micro_batch, grad_accum = _fit_batch(path, content, world_size, notes)
    offload = zero.get("offload_optimizer", {}).get("device", "none") != "none"
    if world_size == 1 and zero.get("stage", 0) in (1, 2) and not offload and precision != "fp16":
        notes.append(f"one rank, nothing to share out: ZeRO stage 0 instead of {zero['stage']} (the same, faster).")
        zero = engine["zero_optimization"] = {"stage": 0}
    adam = ADAM_DEFAULTS | engine.pop("optimizer", {}).get("params", {})
    adam.pop("torch_adam", None)
    clip = float(content.get("gradient_clipping", 0.0))
    stage = zero.get("stage", 0)
    engine |= {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": grad_accum,
        # In plain mode DeepSpeed does not tell the gradient norm: there kogpt.train.engine clips.
        "gradient_clipping": 0.0 if stage == 0 and precision in ("fp32", "autocast") else clip,
        "zero_force_ds_cpu_optimizer": False,
        # DeepSpeed's own timer waits for the device twice per micro-batch; kogpt.train.trainer measures without.
        "timers": {"throughput": {"enabled": False}},
    }
    engine.setdefault("steps_per_print", 10**9)
    return EnginePlan(
        path=path,
        stage=stage,
        precision=precision,
        offload=offload,
        global_batch=content["train_batch_size"],
        micro_batch=micro_batch,
        grad_accum=grad_accum,
        clip=clip,
        adam=adam,
        engine=engine,
        notes=tuple(notes),
    )


def _fit_precision(engine: dict[str, Any], device: str, has_bf16: bool, notes: list[str]) -> Precision:
    if engine.get("fp16", {}).get("enabled"):
        if device == "cpu":
            raise UserError('"fp16" is enabled, but CPUs do not offer it; enable "bf16" or neither.')
        return "fp16"
    asked = next((key for key in ("bf16", "torch_autocast") if engine.get(key, {}).get("enabled")), None)
    if asked and device == "cpu" and not has_bf16:
        engine[asked] = {"enabled": False}
        notes.append("a CPU here has no bf16 and would be slow in it: training in fp32 instead.")
        return "fp32"
    if engine.get("torch_autocast", {}).get("enabled"):
        if engine["torch_autocast"].get("dtype", "bfloat16") != "bfloat16":
            raise UserError('"torch_autocast.dtype" is not bfloat16; for fp16 use the "fp16" section.')
        return "autocast"
    if not engine.get("bf16", {}).get("enabled"):
        return "fp32"
    if has_bf16:
        return "bf16"
    engine["bf16"] = {"enabled": False}
    engine["fp16"] = FP16 | engine.get("fp16", {}) | {"enabled": True}
    notes.append("this GPU has no bf16: training in fp16 with loss scaling instead.")
    if engine["zero_optimization"].get("stage", 0) == 0:
        engine["zero_optimization"]["stage"] = 1
        notes.append("fp16 needs ZeRO stage 1: used instead of 0.")
    return "fp16"


def _fit_batch(path: Path, content: dict[str, Any], world_size: int, notes: list[str]) -> tuple[int, int]:
    """The micro-batch, at most the file's, that divides a rank's share of the global batch; and the accumulation."""
    total, limit = content["train_batch_size"], content["train_micro_batch_size_per_gpu"]
    if total % world_size:
        raise UserError(
            f'{path}: "train_batch_size" {total} cannot be shared out evenly among {world_size} ranks; '
            f"make it a multiple of {world_size}, or use another number of ranks."
        )
    share = total // world_size
    stated = content.get("gradient_accumulation_steps")
    if stated is not None and stated * limit * world_size != total:
        raise UserError(
            f'{path}: "train_batch_size" {total} is not "train_micro_batch_size_per_gpu" {limit} x '
            f'"gradient_accumulation_steps" {stated} x {world_size} ranks; leave out the accumulation, it follows.'
        )
    micro = next(size for size in range(min(limit, share), 0, -1) if share % size == 0)
    if micro != limit:
        notes.append(f"micro-batch {micro} instead of {limit}: {total} sequences over {world_size} ranks.")
    return micro, share // micro
