"""Read and check the DeepSpeed file. In: a path. Out: its JSON, or a `UserError` with all its problems.

DeepSpeed ignores unknown keys, misreads "auto", trains uphill with a negative clipping value, and fails with a stack
trace on a wrong type. Names, types, and ranges are therefore checked first. `check_sections` lets DeepSpeed itself
check "zero_optimization" and "fp16" (with pydantic) once it is loaded.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.system import has_deepspeed

SECTIONS = (
    *("bf16", "fp16", "torch_autocast", "zero_optimization", "optimizer", "optimizer.params", "data_types"),
    *("zero_optimization.offload_optimizer", "zero_optimization.offload_param"),
    *("aio", "comms_logger", "flops_profiler"),
)
KNOWN = {
    *(name for name in SECTIONS if "." not in name),
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"),
    *("zero_force_ds_cpu_optimizer", "steps_per_print", "communication_data_type", "wall_clock_breakdown"),
}
OURS = {
    "scheduler": "the learning rate is set by --schedule, --warmup, --decay, and --min-lr-ratio",
    "wandb": "W&B is set by --wandb",
    "checkpoint": "kogpt has its own checkpoints",
    "load_universal": "every checkpoint loads on any number of ranks",
}
ADAM_DEFAULTS = {"lr": 6e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
MUON_DEFAULTS = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1, "ns_method": "standard"}
MUON_DEFAULTS |= {"betas": [0.9, 0.95], "eps": 1e-8}
RATES = {"lr", "muon_lr", "adam_lr"}
"""DeepSpeed's names. `muon_lr` and `adam_lr` set the learning rates of the two halves instead of `lr`."""
PARAMS = {
    "AdamW": {*ADAM_DEFAULTS, "torch_adam"},
    "Muon": {*MUON_DEFAULTS, "muon_lr", "adam_lr", "torch_adam"},
}
"""The keys of each optimizer. `torch_adam`, which DeepSpeed may need, changes nothing here."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "train_batch_size": (_whole, "a whole number of sequences"),
    "train_micro_batch_size_per_gpu": (_whole, "a whole number of sequences"),
    "gradient_accumulation_steps": (_whole, "a whole number, or leave it out"),
    "steps_per_print": (_whole, "a whole number of steps"),
    "gradient_clipping": (lambda v: _number(v) and v >= 0, "the largest gradient norm, or 0 for no clipping"),
    "optimizer.type": (lambda v: v in ("AdamW", "Muon"), '"AdamW" or "Muon"'),
    **{
        f"optimizer.params.{name}": (lambda v: _number(v) and v > 0, "a number above 0")
        for name in ("lr", "muon_lr", "adam_lr", "eps")
    },
    "optimizer.params.momentum": (lambda v: _number(v) and 0 <= v < 1, "a number from 0 to below 1"),
    "optimizer.params.ns_method": (lambda v: v in ("standard", "gram"), '"standard" or "gram"'),
    "optimizer.params.weight_decay": (lambda v: _number(v) and v >= 0, "0 or more"),
    "optimizer.params.betas": (
        lambda v: isinstance(v, list) and len(v) == 2 and all(_number(b) and 0 <= b < 1 for b in v),
        "two numbers from 0 to below 1",
    ),
    "zero_optimization.stage": (lambda v: type(v) is int and 0 <= v <= 3, "0, 1, 2 or 3"),
    "data_types.grad_accum_dtype": (lambda v: v in ("fp32", "bf16", "fp16"), '"fp32", "bf16" or "fp16"'),
    **{
        f"{name}.enabled": (lambda v: isinstance(v, bool), "true or false")
        for name in ("bf16", "fp16", "torch_autocast")
    },
}


def read(path: Path) -> dict[str, Any]:
    """The content of the file, or a `UserError` with all its problems."""
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--deepspeed-config {path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"--deepspeed-config {path} is not a JSON object.")
    problems = [f'"{name}" appears twice in one section; keep one.' for name in twice]
    if problems := problems + _problems(content):
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return content


def completed(optimizer: dict[str, Any], beneath: dict[str, Any] | None = None) -> dict[str, Any]:
    """An "optimizer" section with its type and all its parameters.

    What it does not say is that of the optimizer `beneath`, if this has the same type, and else the default. Its "lr"
    stands for all learning rates that it does not state.
    """
    kind, said = optimizer.get("type", "AdamW"), optimizer.get("params", {})
    known = beneath["params"] if beneath is not None and beneath["type"] == kind else {}
    if "lr" in said:
        known = {name: value for name, value in known.items() if name not in RATES}
    return {"type": kind, "params": (MUON_DEFAULTS if kind == "Muon" else ADAM_DEFAULTS) | known | said}


def _problems(content: dict[str, Any]) -> list[str]:
    problems = []
    for key in content:
        if key in OURS:
            problems.append(f'remove "{key}": {OURS[key]}.')
        elif key not in KNOWN:
            problems.append(f'the key "{key}" is unknown; known keys are {", ".join(sorted(KNOWN))}.')
    autos = _autos(content)
    problems += [f'"{place}" is "auto"; write the value.' for place in autos]
    shapeless = [place for place in SECTIONS if not isinstance(_at(content, place, {}), dict)]
    problems += [
        f'"{place}" is {json.dumps(_at(content, place, {}))}; write an object, {{...}}, or leave it out.'
        for place in shapeless
        if place not in autos
    ]
    for place, (valid, wanted) in VALUES.items():
        value = _at(content, place, _ABSENT)
        if value is not _ABSENT and place not in autos and not valid(value):
            problems.append(f'"{place}" is {json.dumps(value)}; give {wanted}.')
    for section, known in (("optimizer", {"type", "params"}), ("data_types", {"grad_accum_dtype"})):
        problems += _unknown(content, section, known)
    kind = _at(content, "optimizer.type", "AdamW")
    problems += _unknown(content, "optimizer.params", PARAMS.get(kind if isinstance(kind, str) else "", set()))
    return problems + ([] if shapeless else _contradictions(content))


def _contradictions(content: dict[str, Any]) -> list[str]:
    problems = []
    on = [key for key in ("bf16", "fp16", "torch_autocast") if content.get(key, {}).get("enabled")]
    if len(on) > 1:
        problems.append(f"{' and '.join(json.dumps(key) for key in on)} are both enabled; enable one.")
    stage = _at(content, "zero_optimization.stage", 0)
    if on == ["fp16"] and stage == 0:
        problems.append('"fp16" is enabled with "zero_optimization.stage" 0; use stage 1 (the same on one rank).')
    for name, least in (("offload_optimizer", 1), ("offload_param", 3)):
        device = _at(content, f"zero_optimization.{name}.device", "none")
        if device != "none" and isinstance(stage, int) and stage < least:
            problems.append(f'"zero_optimization.{name}" needs "stage" {least} or higher, not {stage}.')
    offload = _at(content, "zero_optimization.offload_optimizer", {})
    if _at(content, "optimizer.type", "AdamW") == "Muon" and (
        offload.get("device") == "nvme" or offload.get("ratio", 1.0) != 1.0
    ):
        problems.append(
            'with Muon, "zero_optimization.offload_optimizer" can only be {"device": "cpu"}, without a "ratio"; '
            "write that, or use AdamW."
        )
    return problems


def check_sections(path: Path, content: dict[str, Any]) -> None:
    """Let DeepSpeed check the sections that it has models for; its complaints become a `UserError`.

    Without DeepSpeed nothing reads them.
    """
    if not has_deepspeed():
        return
    from deepspeed.runtime.precision_config import DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import ValidationError

    problems = []
    for section, model in (("zero_optimization", DeepSpeedZeroConfig), ("fp16", DeepSpeedFP16Config)):
        try:
            model(**content.get(section, {}))
        except ValidationError as error:
            for found in error.errors():
                place = ".".join(map(str, (section, *found["loc"])))
                problems.append(f'{path}: "{place}" is refused by DeepSpeed: {found["msg"]}.')
        except (ValueError, TypeError, AssertionError) as error:
            problems.append(f'{path}: "{section}" is refused by DeepSpeed: {error}.')
    if problems:
        raise UserError("\n".join(problems))


_ABSENT = object()


def _at(content: Any, place: str, default: Any) -> Any:
    """The value at a dotted path, or the default if the path does not exist."""
    for name in place.split("."):
        if not isinstance(content, dict) or name not in content:
            return default
        content = content[name]
    return content


def _unknown(content: dict[str, Any], section: str, known: set[str]) -> list[str]:
    there = _at(content, section, {})
    unknown = sorted(set(there) - known) if isinstance(there, dict) else []
    return [f'"{section}" has unknown keys: {", ".join(unknown)}.'] if unknown else []


def _autos(content: Any, place: str = "") -> list[str]:
    if isinstance(content, dict):
        return [found for key, value in content.items() for found in _autos(value, f"{place}.{key}".lstrip("."))]
    return [place] if content == "auto" else []
