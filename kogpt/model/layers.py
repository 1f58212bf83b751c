"""Layers that several architectures share."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogpt.model.loss import linear_cross_entropy, linear_nll


class VocabMatrix(nn.Module):
    """A matrix [V, C] with one row per token: the embedding, the head, or both if they are tied.

    All uses go through `forward`, because ZeRO 3 gathers a partitioned weight only when its module is called. `use` is
    one of
    - "embed": tokens [..] to vectors [.., C];
    - "logits": hidden states [.., C] to [.., V];
    - "loss": hidden states and targets to the summed nll, a scalar;
    - "nll": hidden states and targets to the nll of each target, in the shape of `targets`, without gradients.
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, width))

    def forward(self, x: Tensor, use: str, targets: Tensor | None = None) -> Tensor:
        if use == "embed":
            return F.embedding(x, self.weight)
        if use == "logits":
            return F.linear(x, self.weight)
        assert targets is not None, use
        hidden: Tensor = x.flatten(0, -2)
        weight: Tensor = self.weight
        if torch.is_autocast_enabled(x.device.type):
            # Cast here once; inside the loss it would be cast once per chunk.
            dtype = torch.get_autocast_dtype(x.device.type)
            hidden, weight = hidden.to(dtype), weight.to(dtype)
        if use == "loss" and torch.is_grad_enabled():
            return linear_cross_entropy(hidden, weight, targets.flatten())
        nll = linear_nll(hidden, weight, targets.flatten())
        return nll.sum() if use == "loss" else nll.view(targets.shape)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang & Sennrich 2019), in at least float32."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            # The fused kernel takes one dtype. Under autocast, queries and keys are in another than the weight.
            out = F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)
        else:
            out = _RMSNorm.apply(x, self.weight, self.eps)
        if torch.is_autocast_enabled(x.device.type):
            out = out.to(torch.get_autocast_dtype(x.device.type))  # once, instead of in each matrix that reads it
        return out


class _RMSNorm(torch.autograd.Function):
    """On a CPU, torch composes its `rms_norm` of many operations, which keep two more copies of x and take longer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        unit = x * scale
        grad = grads[0].to(unit.dtype)
        grad_weight = (grad * unit).flatten(0, -2).sum(0)
        grad = grad * weight
        grad_x = (grad - unit * (grad * unit).mean(-1, keepdim=True)).mul_(scale)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None
