"""Fit a plan to the free memory. In: a model's configuration, a plan, ranks. Out: a plan that fits.

The micro-batch of the DeepSpeed file is an upper limit. If it does not fit, the largest one that does is used. It is
kept in `micro_batch.json` of the run folder, for each device, number of ranks, ZeRO stage, and model shape, so that a
resumed run rounds in the same way.
"""

import json
import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.common.host_memory import host_memory
from kogpt.model.config import ModelConfig
from kogpt.model.loss import CHUNK_LOGITS
from kogpt.optim.parameter_groups import hidden_count
from kogpt.train.deepspeed_config import EnginePlan, with_micro_batch
from kogpt.train.distributed import Ranks, broadcast_object, on_first, reduce_max
from kogpt.train.memory import Memory, memory_per_rank

log = logging.getLogger(__name__)


def fit_memory(
    config: ModelConfig,
    plan: EnginePlan,
    ranks: Ranks,
    run: Path,
    *,
    checkpoint_activations: bool = False,
    document_mask: bool = False,
) -> tuple[EnginePlan, Memory]:
    """The plan with a micro-batch that fits, and its estimate per rank. All ranks must call it and get the same result.

    `document_mask` is for windows with several documents.

    Raises:
        UserError: on all ranks, with advice, if not even one sequence fits on the rank with the least memory.
    """
    have = _free(ranks)
    path, key = run / "micro_batch.json", _key(config, plan, ranks, checkpoint_activations)
    kept = broadcast_object(on_first(ranks, lambda: _kept(path).get(key)))
    fitted, need = largest(config, plan, ranks, have, checkpoint_activations, document_mask, limit=kept)
    if need.to_be_free(ranks.device.type) <= have:
        if fitted.micro_batch != plan.micro_batch:
            log.info(
                f"Using a micro-batch of {fitted.micro_batch} instead of {plan.micro_batch}, which fits the "
                f"{_gib(have)} GiB that are free on each rank."
            )
            on_first(ranks, lambda: _keep(path, key, fitted.micro_batch))
        return fitted, need
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in vars(need).items())
    wanted = _gib(need.to_be_free(ranks.device.type))
    raise UserError(
        f"training needs about {wanted} GiB on each rank at a micro-batch of 1 ({parts}), but "
        f"only {_gib(have)} GiB are free; "
        f"{_advice(config, fitted, ranks, have, checkpoint_activations, document_mask)}"
    )


def largest(
    config: ModelConfig,
    plan: EnginePlan,
    ranks: Ranks,
    have: int,
    checkpoint_activations: bool = False,
    document_mask: bool = False,
    *,
    limit: int | None = None,
) -> tuple[EnginePlan, Memory]:
    """The plan with the largest micro-batch, up to `limit`, that fits `have` bytes; if none does, with one of 1."""
    share, most = plan.global_batch // ranks.world_size, min(plan.micro_batch, limit or plan.micro_batch)
    for size in (size for size in range(most, 0, -1) if share % size == 0):
        fitted = plan if size == plan.micro_batch else with_micro_batch(plan, size, ranks.world_size)
        need = estimate(config, fitted, ranks, checkpoint_activations, document_mask)
        if need.to_be_free(ranks.device.type) <= have:
            break
    return fitted, need


def estimate(
    config: ModelConfig,
    plan: EnginePlan,
    ranks: Ranks,
    checkpoint_activations: bool = False,
    document_mask: bool = False,
) -> Memory:
    """The estimated memory per rank of a plan."""
    zero = plan.engine["zero_optimization"]
    reduce = zero.get("reduce_bucket_size", 500_000_000) * (2 if zero.get("overlap_comm", plan.stage == 3) else 1)
    gather = zero.get("stage3_prefetch_bucket_size" if plan.stage == 3 else "allgather_bucket_size", 500_000_000)
    if ranks.device.type == "cpu":  # Linux provides memory only when it is written to
        reduce = min(reduce, config.parameter_count)
    return memory_per_rank(
        config,
        stage=plan.stage,
        world_size=ranks.world_size,
        precision=plan.precision,
        micro_batch=plan.micro_batch,
        seq_len=config.max_seq_len,
        grad_accum=plan.grad_accum,
        offload_optimizer=plan.offload,
        checkpoint_activations=checkpoint_activations,
        document_mask=document_mask,
        chunk_logits=CHUNK_LOGITS["cpu" if ranks.device.type == "cpu" else "gpu"],
        bucket_elements=reduce + min(gather, config.parameter_count) if plan.stage else 0,
        muon_parameters=hidden_count(config) if plan.muon is not None else 0,
    )


def free_memory(device: torch.device) -> int:
    """Free bytes of the device; of a CPU those that this process may use, which all its node's ranks share."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host_memory().free


def _free(ranks: Ranks) -> int:
    """The free bytes of the rank with the least."""
    sharing = 1 if ranks.device.type == "cuda" else ranks.local_world_size
    return -int(reduce_max(ranks, -(free_memory(ranks.device) // sharing))[0])


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"


def _advice(config: ModelConfig, plan: EnginePlan, ranks: Ranks, have: int, forgetful: bool, masked: bool) -> str:
    """The smallest change that fits, or general advice. The micro-batch is 1 already."""
    changes: list[tuple[str, EnginePlan, bool]] = []
    if not forgetful:
        changes.append(("--checkpoint-activations", plan, True))
    changes += [
        (f'"zero_optimization.stage" {stage} in {plan.path.name} with --checkpoint-activations', _at(plan, stage), True)
        for stage in (1, 2, 3)
        if stage > plan.stage and ranks.world_size > 1
    ]
    if ranks.device.type == "cuda":
        offload = replace(_at(plan, 2), offload=True)
        changes.append(("--deepspeed-config launch/ds_zero2_offload.json --checkpoint-activations", offload, True))
    for advice, changed, forgets in changes:
        if estimate(config, changed, ranks, forgets, masked).to_be_free(ranks.device.type) <= have:
            return f"{advice} would fit."
    return "choose a smaller --preset, --depth, or --max-seq-len, or more ranks."


def _at(plan: EnginePlan, stage: Any) -> EnginePlan:
    """The plan at another ZeRO stage, good for an estimate only."""
    precision = "bf16" if plan.precision == "autocast" else plan.precision
    return replace(plan, stage=stage, precision=precision)


def _key(config: ModelConfig, plan: EnginePlan, ranks: Ranks, forgetful: bool) -> str:
    device = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else ranks.device.type
    shape = json.dumps(config.to_dict(), sort_keys=True)
    return f"{device}, {ranks.world_size} ranks, ZeRO {plan.stage}, {plan.precision}, {forgetful}, {shape}"


def _kept(path: Path) -> dict[str, int]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: size for key, size in found.items() if isinstance(size, int) and size > 0}
    return {}


def _keep(path: Path, key: str, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps(_kept(path) | {key: size}, indent=1).encode())
