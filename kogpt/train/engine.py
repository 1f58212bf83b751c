"""The model under DeepSpeed: built, trained, saved, restored. In: plans and a checkpoint. Out: `TrainingEngine`.

Where DeepSpeed is not installed, `plain.py` does the same on one device.

The optimizer is torch's fused AdamW at every ZeRO stage, with Muon for the hidden matrices if the plan says so. Its
learning rate is 0 until the first step, because at some stages DeepSpeed makes an empty update during set-up, which
must not decay the weights.

Each parameter group has its own peak learning rate, `peak_lr`. The schedule scales all of them by the same factor.

On resume the weights are loaded twice: before DeepSpeed wraps the model, which makes the half-precision copies, and
then exactly, into its fp32 master weights.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kogpt.common.numerics import fused_attention
from kogpt.common.system import has_deepspeed
from kogpt.data.batch import Batch
from kogpt.model.config import ModelConfig
from kogpt.model.decoder import Decoder
from kogpt.optim.muon import OrthogonalAdamW
from kogpt.optim.parameter_groups import muon_groups, parameter_groups
from kogpt.train.construction import build
from kogpt.train.deepspeed_config import EnginePlan
from kogpt.train.distributed import Ranks
from kogpt.train.full_state import FullState
from kogpt.train.plain import PlainEngine
from kogpt.train.restorer import Restorer
from kogpt.train.saver import Part
from kogpt.train.whole_matrices import WholeMatrices
from kogpt.train.zero_step import one_optimizer_for_stages_1_and_2, wait_once

_SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class TrainingEngine:
    """A model in a DeepSpeed engine: `loss` and `backward` for each micro-batch, then one `update`."""

    def __init__(
        self, config: ModelConfig, plan: EnginePlan, ranks: Ranks, seed: int, checkpoint: Restorer | None
    ) -> None:
        self.config, self.plan, self.ranks = config, plan, ranks
        torch.manual_seed(seed)
        model = build(config, plan, ranks, checkpoint)
        self.optimizer = _optimizer(model, plan)
        self.engine = _engine(model, self.optimizer, plan, ranks)
        self.state = FullState(self.engine, self.optimizer, ranks.rank, ranks.world_size)
        if isinstance(self.optimizer, OrthogonalAdamW) and plan.muon is not None:
            dtype = torch.bfloat16 if plan.precision in ("autocast", "bf16") else torch.float32
            method = plan.muon["ns_method"]
            self.optimizer.directions = WholeMatrices(self.module, self.state, ranks, dtype, method)

    @property
    def module(self) -> Decoder:
        """The model. Under ZeRO 3 its weights are whole only during a forward pass of all ranks."""
        return self.engine.module

    def loss(self, batch: Batch) -> Tensor:
        """The summed nll of a micro-batch's targets."""
        with fused_attention(self.ranks.device):
            return self.engine(*batch)

    def backward(self, loss: Tensor, targets: int) -> None:
        """Accumulate the gradients of `loss` / `targets`, a micro-batch's part of the mean over the global batch.

        `targets` is the number of targets that all ranks score in this step. DeepSpeed averages gradients over ranks;
        the factor `world_size` undoes this. Its division by the number of micro-batches is switched off.
        """
        with fused_attention(self.ranks.device):  # --checkpoint-activations computes it again, by the same kernel
            self.engine.backward(loss * (self.ranks.world_size / targets), scale_wrt_gas=False)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # only counts

    def update(self, schedule: float) -> Tensor | float:
        """Clip the gradients and update the weights, each group with `schedule` times its peak learning rate.

        Returns the gradient norm before clipping, which may still be on the device. If it is not finite, the update
        was skipped on all ranks.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * schedule
        if self.plan.stage == 0:
            return self._plain_update()
        self.engine.step()
        return self.engine.get_global_grad_norm()

    def _plain_update(self) -> Tensor:
        """Stage 0, where DeepSpeed computes no norm. Every rank has the same, whole gradients.

        The host does not wait for the norm: fused Adam reads `found_inf` on the device and skips the update itself.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.plan.clip or math.inf)
        self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.engine.step()
        return norm

    def token_nll(self, batch: Batch) -> Tensor:
        """The nll of every target of a batch, in the precision of training. All ranks must call it."""
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.plan.precision == "autocast"):
            return self.module.token_nll(*batch[:2])

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switch off dropout, gradients, and torch.compile (which would compile for shapes that occur once)."""
        self.engine.eval()
        try:
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                yield
        finally:
            self.engine.train()

    @property
    def loss_scale(self) -> float:
        """The loss scale of fp16; 1 in other precisions."""
        return float(self.engine.optimizer.loss_scaler.cur_scale) if self.plan.precision == "fp16" else 1.0

    def parts(self) -> list[Part]:
        """The parts of the weights and optimizer slots that this rank saves."""
        return self.state.shards()

    def counters(self) -> dict[str, Any]:
        """The optimizer step and the state of the loss scaler, for state.json."""
        scaler = {field: getattr(self.engine.optimizer.loss_scaler, field) for field in self._scaler_fields()}
        return {"optimizer_step": self.state.step, "loss_scaler": scaler}

    def restore(self, checkpoint: Restorer) -> None:
        """Restore a checkpoint exactly. All ranks must call it."""
        checkpoint.restore(self.state)
        saved = checkpoint.state
        if (step := saved.get("optimizer_step", saved.get("adam_step"))) is not None:  # the name in format version 1
            self.state.step = step
        for field in self._scaler_fields():
            if field in saved["loss_scaler"]:  # empty in checkpoints of other precisions
                setattr(self.engine.optimizer.loss_scaler, field, saved["loss_scaler"][field])

    def _scaler_fields(self) -> tuple[str, ...]:
        return _SCALER_FIELDS if self.plan.precision == "fp16" else ()


def _engine(model: Decoder, optimizer: torch.optim.AdamW, plan: EnginePlan, ranks: Ranks) -> Any:
    """DeepSpeed's engine, or the plain one."""
    if not has_deepspeed():
        autocast = plan.precision == "autocast"
        return PlainEngine(model, optimizer, ranks.device, grad_accum=plan.grad_accum, autocast=autocast)
    import deepspeed

    with one_optimizer_for_stages_1_and_2():
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=plan.engine)
    if ranks.world_size == 1 and plan.stage == 0:
        # Otherwise DeepSpeed would copy all gradients to a buffer and back, to sum them over one rank.
        engine.enable_backward_allreduce = False
    wait_once(engine.optimizer)
    return engine


def _optimizer(model: Decoder, plan: EnginePlan) -> torch.optim.AdamW:
    """AdamW, or Muon with AdamW for the rest. Its learning rates are 0 until the first step."""
    settings: dict[str, Any] = {"lr": 0.0, "betas": tuple(plan.adam["betas"]), "eps": plan.adam["eps"], "fused": True}
    if plan.muon is None:
        groups = parameter_groups(model, plan.adam["weight_decay"])
        return torch.optim.AdamW([{"peak_lr": plan.adam["lr"], **group} for group in groups], **settings)
    hidden, rest = muon_groups(model, plan.muon["weight_decay"])
    hidden |= {"peak_lr": plan.muon["lr"], "momentum": plan.muon["momentum"]}
    return OrthogonalAdamW([hidden, {"peak_lr": plan.adam["lr"], **rest}], **settings)
