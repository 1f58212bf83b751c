"""Training on one device without DeepSpeed: the engine that `TrainingEngine` needs at ZeRO stage 0, in plain PyTorch.

DeepSpeed has no packages for Windows and macOS. Where it is not installed, `PlainEngine` takes its place. In: a model
and its optimizer. Out: the same losses and checkpoints, to the bit, as stage 0 on one rank; either resumes the other.
Several ranks, fp16, and off-loading need DeepSpeed.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kogpt.common.errors import UserError
from kogpt.model.decoder import Decoder

NOTE = "DeepSpeed is not installed: training on one device by a plain loop, with the same losses and checkpoints."
MEND = "install DeepSpeed (pip install deepspeed; on Windows in WSL2)"


def refuse_several(world_size: str) -> None:
    """Raise `UserError` for several ranks."""
    if world_size != "1":
        raise UserError(
            f"{world_size} ranks need DeepSpeed, which is not installed; {MEND}, or start one process with "
            "`python launch/train.py` and without WORLD_SIZE."
        )


def refuse_stage(path: Path, stage: int) -> None:
    """Raise `UserError` for a ZeRO stage that one rank still has, because of fp16 or off-loading."""
    if stage > 0:
        raise UserError(
            f'{path}: "fp16" and off-loading need DeepSpeed, which is not installed; {MEND}, or set '
            '"zero_optimization" to {"stage": 0} and enable "bf16" or neither.'
        )


class PlainEngine:
    """A model that is trained on one device, with the methods of a DeepSpeed engine that `TrainingEngine` calls."""

    def __init__(
        self, model: Decoder, optimizer: torch.optim.Optimizer, device: torch.device, *, grad_accum: int, autocast: bool
    ) -> None:
        self.module = model.to(device).train()
        self.optimizer: Any = optimizer
        self.device, self.grad_accum, self.autocast = device, grad_accum, autocast
        self._micro_steps = 0

    def __call__(self, *batch: Tensor | None) -> Tensor:
        """The loss of a micro-batch."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.module(*batch)

    def backward(self, loss: Tensor, *, scale_wrt_gas: bool) -> None:
        """Accumulate gradients. They are never divided here (`scale_wrt_gas`)."""
        assert not scale_wrt_gas
        loss.backward()

    def is_gradient_accumulation_boundary(self) -> bool:
        """Whether this micro-batch is the last of its step."""
        return (self._micro_steps + 1) % self.grad_accum == 0

    def step(self) -> None:
        """Count a micro-batch; after the last one of a step, update the weights."""
        if self.is_gradient_accumulation_boundary():
            # The fused AdamW of mps does not read `found_inf`.
            if self.device.type != "mps" or not self.optimizer.found_inf:
                self.optimizer.step()
            self.optimizer.zero_grad()
        self._micro_steps += 1

    def train(self) -> None:
        """Switch on dropout."""
        self.module.train()

    def eval(self) -> None:
        """Switch off dropout."""
        self.module.eval()
