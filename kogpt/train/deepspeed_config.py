"""Fit the DeepSpeed file to this machine. In: its content, the number of ranks. Out: `EnginePlan`.

kogpt.train.setup has completed the content where it names no batch and no optimizer. `train_batch_size` is always
kept, because it affects the result. `train_micro_batch_size_per_gpu` is an upper limit for what one rank holds at
once. The accumulation follows from both.

The optimizer is torch's AdamW, fused where possible (also on CPUs), so nothing needs to be compiled; with Muon, it
updates the embeddings, the head, and the vectors. If Muon has no "adam_lr", AdamW takes `ADAM_SHARE` of "lr", and it
decays nothing: "weight_decay" is that of the hidden matrices. At stage 0, bf16 means fp32 weights with bf16 autocast:
for 12 layers, DeepSpeed's own wrapper launches 2,800 kernels and waits 153 times per update, torch's fused AdamW
launches 14 and waits once. Gradients of several micro-batches are summed in fp32, unless "data_types.grad_accum_dtype"
says otherwise.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kogpt.common import system
from kogpt.common.errors import UserError
from kogpt.model.config import Precision
from kogpt.train import plain
from kogpt.train.deepspeed_file import ADAM_DEFAULTS, MUON_DEFAULTS
from kogpt.train.recipe import dividing

MICRO_BATCH = 64
"""The upper limit for the micro-batch if the file has none."""
ADAM_SHARE = 0.1
"""The learning rate of AdamW as a share of Muon's, if the file states only "lr". At Muon's default of 0.02 it is the
one that was best for AdamW alone (bench/LOG.md)."""
FP16 = {"enabled": True, "loss_scale": 0, "initial_scale_power": 12, "loss_scale_window": 500}


@dataclass(frozen=True)
class EnginePlan:
    """The settings after fitting them to the machine. `engine` is the dict for deepspeed.initialize."""

    path: Path
    stage: Literal[0, 1, 2, 3]
    precision: Precision
    offload: bool
    global_batch: int
    micro_batch: int
    grad_accum: int
    clip: float
    adam: dict[str, Any]
    """Settings of AdamW: lr, betas, eps, weight_decay."""
    muon: dict[str, Any] | None
    """Settings of Muon, if it updates the hidden matrices: lr, momentum, weight_decay, ns_method."""
    engine: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def lr(self) -> float:
        """The peak learning rate that is recorded: that of the hidden matrices."""
        return (self.muon or self.adam)["lr"]


def plan(
    path: Path,
    content: dict[str, Any],
    *,
    world_size: int,
    device: str,
    has_bf16: bool,
    has_fp16: bool = True,
    deepspeed: bool | None = None,
) -> EnginePlan:
    """Fit precision, micro-batch, and accumulation to the machine. `notes` says what was changed.

    `has_fp16`: does DeepSpeed train in fp16 on its GPUs? It does on most (kogpt.common.device).
    `deepspeed`: does the machine have DeepSpeed? By default as this one.
    """
    deepspeed = system.has_deepspeed() if deepspeed is None else deepspeed
    engine = copy.deepcopy(content)
    notes: list[str] = []
    zero = engine.setdefault("zero_optimization", {"stage": 0})
    precision = _fit_precision(engine, device, has_bf16, has_fp16, deepspeed, notes)
    micro_batch, grad_accum = _fit_batch(path, content, world_size, notes)
    offload = zero.get("offload_optimizer", {}).get("device", "none") != "none"
    shared = offload or zero.get("offload_param", {}).get("device", "none") != "none"
    if world_size == 1 and zero.get("stage", 0) > 0 and not shared and precision != "fp16":
        notes.append(
            f"One rank has nothing to partition: using ZeRO stage 0 instead of {zero['stage']} (same result, faster)."
        )
        zero = engine["zero_optimization"] = {"stage": 0}
    stage = zero.setdefault("stage", 0)
    if not deepspeed:
        plain.refuse_stage(path, stage)
        notes.append(plain.NOTE)
    if stage == 0 and precision == "bf16":
        precision = "autocast"
        engine["bf16"] = {"enabled": False}
    if precision == "autocast":
        engine["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", **content.get("torch_autocast", {})}
        engine["torch_autocast"]["enabled"] = True
    _fit_accumulation(path, engine, precision, grad_accum, notes)
    adam, muon = _fit_optimizer(engine, notes)
    clip = float(content.get("gradient_clipping", 0.0))
    engine |= {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": grad_accum,
        # At stage 0 DeepSpeed does not report the gradient norm, so kogpt.train.engine clips.
        "gradient_clipping": 0.0 if stage == 0 else clip,
        "zero_force_ds_cpu_optimizer": False,
        # DeepSpeed's timer waits for the device twice per micro-batch; kogpt.train.trainer measures without waiting.
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
        muon=muon,
        engine=engine,
        notes=tuple(notes),
    )


def with_micro_batch(plan: EnginePlan, size: int, world_size: int) -> EnginePlan:
    """The same plan with another micro-batch, which divides a rank's share of the global batch."""
    grad_accum = plan.global_batch // (size * world_size)
    engine = plan.engine | {"train_micro_batch_size_per_gpu": size, "gradient_accumulation_steps": grad_accum}
    if plan.precision in ("bf16", "fp16") and grad_accum > 1:
        engine.setdefault("data_types", {"grad_accum_dtype": "fp32"})
    return replace(plan, micro_batch=size, grad_accum=grad_accum, engine=engine)


def _fit_optimizer(engine: dict[str, Any], notes: list[str]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The settings of AdamW, and those of Muon if it is chosen. The optimizer is ours, not DeepSpeed's."""
    asked = engine.pop("optimizer", {})
    params = asked.get("params", {})
    if asked.get("type", "AdamW") == "AdamW":
        return {key: params.get(key, value) for key, value in ADAM_DEFAULTS.items()}, None
    engine["zero_allow_untested_optimizer"] = True
    params = MUON_DEFAULTS | params
    lr = params.get("muon_lr", params["lr"])
    muon = {"lr": lr, **{key: params[key] for key in ("momentum", "weight_decay", "ns_method")}}
    adam_lr = params.get("adam_lr", ADAM_SHARE * params["lr"])
    adam = {"lr": adam_lr, "betas": params["betas"], "eps": params["eps"], "weight_decay": 0.0}
    notes.append(
        f"Muon updates the hidden matrices with a learning rate of {lr:g} and a weight decay of "
        f"{muon['weight_decay']:g}; AdamW updates the embeddings, the head, and the vectors with a learning rate of "
        f"{adam_lr:g}{'' if 'adam_lr' in params else f' ({ADAM_SHARE:g} x lr; adam_lr sets another)'}, without decay."
    )
    return adam, muon


def _fit_precision(
    engine: dict[str, Any], device: str, has_bf16: bool, has_fp16: bool, deepspeed: bool, notes: list[str]
) -> Precision:
    if engine.get("fp16", {}).get("enabled"):
        if device != "cuda" or not has_fp16:
            gpu = "an NVIDIA GPU of compute capability 7 or later" if device == "cuda" else "an NVIDIA GPU"
            why = "CPUs do not support it" if device == "cpu" else f"it needs {gpu}"
            raise UserError(f'"fp16" is enabled, but {why}; enable "bf16" or neither.')
        return "fp16"
    asked = next((key for key in ("bf16", "torch_autocast") if engine.get(key, {}).get("enabled")), None)
    if asked is None:
        return "fp32"
    if engine[asked].get("dtype", "bfloat16") != "bfloat16":
        raise UserError('"torch_autocast.dtype" is not bfloat16; for fp16 use the "fp16" section.')
    if has_bf16:
        return "bf16" if asked == "bf16" else "autocast"
    engine[asked] = {"enabled": False}
    if device != "cuda" or not has_fp16 or not deepspeed:
        what = "CPU" if device == "cpu" else "GPU"
        notes.append(f"A {what} of this run has no bf16 hardware, where bf16 is slow: training in fp32 instead.")
        return "fp32"
    engine["fp16"] = FP16 | engine.get("fp16", {}) | {"enabled": True}
    notes.append("A GPU of this run has no bf16 hardware: training in fp16 with loss scaling instead.")
    if engine["zero_optimization"].get("stage", 0) == 0:
        engine["zero_optimization"]["stage"] = 1
        notes.append("fp16 needs ZeRO stage 1: using it instead of 0.")
    return "fp16"


def _fit_accumulation(
    path: Path, engine: dict[str, Any], precision: Precision, grad_accum: int, notes: list[str]
) -> None:
    """Set the type in which gradients are summed over micro-batches, if there is a choice."""
    asked = engine.pop("data_types", {}).get("grad_accum_dtype")
    if precision in ("fp32", "autocast"):
        if asked not in (None, "fp32"):
            notes.append(
                f'Ignoring "data_types.grad_accum_dtype" {asked}: the weights are fp32, and so are their gradients.'
            )
    elif asked not in (None, "fp32", precision):
        raise UserError(
            f'{path}: "data_types.grad_accum_dtype" is "{asked}", but training is in {precision}; '
            f'give "fp32" or "{precision}".'
        )
    elif grad_accum > 1:  # otherwise nothing is summed
        engine["data_types"] = {"grad_accum_dtype": asked or "fp32"}


def _fit_batch(path: Path, content: dict[str, Any], world_size: int, notes: list[str]) -> tuple[int, int]:
    """The largest allowed micro-batch that divides a rank's share of the global batch; and the accumulation."""
    total, limit = content["train_batch_size"], content.get("train_micro_batch_size_per_gpu", MICRO_BATCH)
    if total % world_size:
        raise UserError(
            f'{path}: "train_batch_size" {total} cannot be divided evenly among {world_size} ranks; '
            f"make it a multiple of {world_size}, or use another number of ranks: {dividing(total, world_size)}."
        )
    share = total // world_size
    stated = content.get("gradient_accumulation_steps")
    if stated is not None and stated * limit * world_size != total:
        raise UserError(
            f'{path}: the {total} windows of a step are not "train_micro_batch_size_per_gpu" {limit} x '
            f'"gradient_accumulation_steps" {stated} x {world_size} ranks; remove the accumulation, it is computed.'
        )
    micro = next(size for size in range(min(limit, share), 0, -1) if share % size == 0)
    if micro != limit:
        notes.append(f"Using a micro-batch of {micro} instead of {limit} for {total} sequences on {world_size} ranks.")
    return micro, share // micro
