"""The model under DeepSpeed: built, trained, saved, restored. In: plans and a checkpoint. Out: `TrainingEngine`.

The optimizer is torch's fused AdamW in all stages, with a learning rate of 0 until the first step: DeepSpeed makes
an empty update while it sets some stages up, which must not decay the weights.

A group of parameters carries its own peak of the learning rate, `peak_lr`; the schedule scales all of them alike.

On resume the weights go in twice: before DeepSpeed takes the model (which gives the half-precision copies) and, exact,
into its fp32 masters.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kogpt.common.numerics import fused_attention
from kogpt.data.batch import Batch
from kogpt.model import registry
from kogpt.model.config import ModelConfig
from kogpt.model.decoder import Decoder
from kogpt.optim.parameter_groups import parameter_groups
from kogpt.train.deepspeed_config import EnginePlan
from kogpt.train.distributed import Ranks, broadcast
from kogpt.train.full_state import FullState
from kogpt.train.restorer import Restorer
from kogpt.train.saver import Part
from kogpt.train.zero_step import one_optimizer_for_stages_1_and_2, wait_once

_SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class TrainingEngine:
    """A model in a DeepSpeed engine: `loss` and `backward` for each micro-batch, then one `update`."""

    def __init__(
        self, config: ModelConfig, plan: EnginePlan, ranks: Ranks, seed: int, checkpoint: Restorer | None
    ) -> None:
        import deepspeed

        self.config, self.plan, self.ranks = config, plan, ranks
        torch.manual_seed(seed)
        model = registry.build(config)
        _same_weights(model, ranks, checkpoint)
        self.optimizer = torch.optim.AdamW(
            [{"peak_lr": plan.adam["lr"], **group} for group in parameter_groups(model, plan.adam["weight_decay"])],
            lr=0.0,
            betas=tuple(plan.adam["betas"]),
            eps=plan.adam["eps"],
            fused=True,
        )
        with one_optimizer_for_stages_1_and_2():
            self.engine, *_ = deepspeed.initialize(model=model, optimizer=self.optimizer, config=plan.engine)
        if ranks.world_size == 1 and plan.stage == 0:
            # DeepSpeed would copy all gradients into one buffer and back, to sum them over one rank.
            self.engine.enable_backward_allreduce = False
        wait_once(self.engine.optimizer)
        self.state = FullState(self.engine, self.optimizer, ranks.rank, ranks.world_size)

    @property
    def module(self) -> Decoder:
        """The model; under ZeRO 3 its weights are whole only inside a forward pass, made by all ranks."""
        return self.engine.module

    def loss(self, batch: Batch) -> Tensor:
        """The summed nll of a micro-batch's targets."""
        with fused_attention(self.ranks.device):
            return self.engine(*batch)

    def backward(self, loss: Tensor, targets: int) -> None:
        """Gradients of a micro-batch's share of the mean over the `targets` that all ranks score in this step.

        DeepSpeed averages the gradients over the ranks, which is undone here. Its division by the accumulation is
        switched off. In fp16 the loss scale finds gradients of the size of a mean, not of a sum.
        """
        self.engine.backward(loss * (self.ranks.world_size / targets), scale_wrt_gas=False)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # only counts

    def update(self, schedule: float) -> Tensor | float:
        """Clip, and let the optimizer update the weights, each group with `schedule` times its peak learning rate.

        Returns the gradient norm before clipping, perhaps still on the device. Where it is not finite nothing has
        changed, on any rank.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * schedule
        if self.plan.stage == 0:
            return self._plain_update()
        self.engine.step()
        return self.engine.get_global_grad_norm()

    def _plain_update(self) -> Tensor:
        """Stage 0, where DeepSpeed looks at no norm: gradients are whole, the same on all ranks.

        Nobody waits for the norm: the fused Adam looks at `found_inf` on the device and leaves the update out.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.plan.clip or math.inf)
        self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.engine.step()
        return norm

    def token_nll(self, batch: Batch) -> Tensor:
        """The nll of every target of a batch, in the precision of training; all ranks call."""
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.plan.precision == "autocast"):
            return self.module.token_nll(*batch[:2])

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without dropout, gradients, and compiled code for shapes that come once."""
        self.engine.eval()
        try:
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                yield
        finally:
            self.engine.train()

    @property
    def loss_scale(self) -> float:
        """The factor on the loss in fp16; 1 in the other precisions."""
        return float(self.engine.optimizer.loss_scaler.cur_scale) if self.plan.precision == "fp16" else 1.0

    def parts(self) -> list[Part]:
        """What this rank has to save of the weights and the optimizer's slots."""
        return self.state.shards()

    def counters(self) -> dict[str, Any]:
        """What is to be saved besides, for state.json."""
        scaler = {field: getattr(self.engine.optimizer.loss_scaler, field) for field in self._scaler_fields()}
        return {"optimizer_step": self.state.step, "loss_scaler": scaler}

    def restore(self, checkpoint: Restorer) -> None:
        """Take over a checkpoint, exactly; all ranks together."""
        checkpoint.restore(self.state)
        saved = checkpoint.state
        if (step := saved.get("optimizer_step", saved.get("adam_step"))) is not None:  # version 1 knew Adam alone
            self.state.step = step
        for field in self._scaler_fields():
            if field in saved["loss_scaler"]:  # a checkpoint of another precision has none
                setattr(self.engine.optimizer.loss_scaler, field, saved["loss_scaler"][field])

    def _scaler_fields(self) -> tuple[str, ...]:
        return _SCALER_FIELDS if self.plan.precision == "fp16" else ()


def _same_weights(model: Decoder, ranks: Ranks, checkpoint: Restorer | None) -> None:
    """The checkpoint's weights, or else rank 0's, on all ranks."""
    for name, parameter in model.named_parameters():
        if checkpoint is not None:
            parameter.data.copy_(checkpoint.weight(name))
        elif ranks.world_size > 1:
            parameter.data.copy_(broadcast(parameter.data.to(ranks.device)))
