"""Muon for the hidden matrices and AdamW for everything else, in one torch optimizer.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) keeps one momentum m per matrix and moves the weight W
[rows, columns] by the nearest semi-orthogonal matrix to it, so that no direction of W moves faster than another:

    m = momentum * m + (1 - momentum) * gradient        u = (1 - momentum) * gradient + momentum * m
    W = (1 - lr * weight_decay) * W  -  lr * sqrt(max(1, rows / columns)) * orthogonalize(u)

`orthogonalize` is a Newton-Schulz iteration: five steps of a quintic polynomial that drives all singular values to
about 1 (0.7 to 1.2). It needs whole matrices. Everything else is elementwise, so ZeRO may cut the optimizer's tensors
anywhere; kogpt.train.whole_matrices gathers the matrices and hands the result back in pieces.

Cost per m x n matrix (m <= n): 5 * (4 m^2 n + 2 m^3) FLOPs by "standard". "gram" iterates on the m x m product instead,
which saves a third where n = 4 m. Memory: one slot, "momentum_buffer", where AdamW has two.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

NewtonSchulz = Literal["standard", "gram"]

STEPS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315
"""The polynomial a x + b x^3 + c x^5: the coefficients with the steepest slope at 0 that stay near 1 (ibid.)."""
_TINY = 1e-7


def orthogonalize(matrices: Tensor, method: NewtonSchulz = "standard") -> Tensor:
    """The Newton-Schulz iteration on a batch of matrices [B, rows, columns]. Works in their dtype, and returns it."""
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_TINY)  # now no singular value is above 1
    x = _gram(x) if method == "gram" and x.size(-2) < x.size(-1) else _standard(x)
    return x.mT if tall else x


def _standard(x: Tensor) -> Tensor:
    for _ in range(STEPS):
        r = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(r, r, r, beta=_B, alpha=_C), x, beta=_A)
    return x


def _gram(x: Tensor) -> Tensor:
    """The same, with the polynomials of R = x x^T multiplied first, and x only with their product.

    R is computed anew after two steps, because rounding errors grow (tridao.me/blog/2026/gram-newton-schulz).
    """
    for steps in (2, STEPS - 2):
        r = x @ x.mT
        product = step = _polynomial(r)
        for _ in range(steps - 1):
            r = step @ r @ step
            step = _polynomial(r)
            product = step @ product
        x = product @ x
    return x


def _polynomial(r: Tensor) -> Tensor:
    """a + b R + c R^2."""
    p = torch.baddbmm(r, r, r, beta=_B, alpha=_C)
    p.diagonal(dim1=-2, dim2=-1).add_(_A)
    return p


class Piece(NamedTuple):
    """A part of a matrix that one update moves, and the direction in which it goes."""

    weight: Tensor
    """A flat view of the optimizer's tensor."""
    direction: Tensor
    """Orthogonalized, flat, on the same device."""
    scale: float
    """sqrt(max(1, rows / columns)) of its matrix."""


Directions = Callable[[list[Tensor]], Iterator[Piece]]
"""From the tensors of a Muon group, whose `grad` holds u, to all pieces that this rank has. All ranks call it."""


class OrthogonalAdamW(torch.optim.AdamW):
    """AdamW, and Muon for the groups that have a "momentum".

    DeepSpeed would take an optimizer with "muon" in its class's name for its own, which clips the orthogonalized
    update instead of the gradient. ZeRO passes each step one group at a time (stages 1 and 2), or one tensor (stage 3).
    """

    directions: Directions | None = None
    """Set once ZeRO has cut the tensors. Until then, a step only creates the slots of Muon's groups."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the weights. Overwrites the gradients of Muon's groups."""
        groups = self.param_groups
        for group in groups:
            if "momentum" in group:
                self._muon([tensor for tensor in group["params"] if tensor.grad is not None], group)
        self.param_groups = [group for group in groups if "momentum" not in group]
        super().step()
        self.param_groups = groups

    def _muon(self, tensors: list[Tensor], group: dict[str, Any]) -> None:
        for tensor in tensors:
            if not self.state[tensor]:
                self.state[tensor]["momentum_buffer"] = torch.zeros_like(tensor)
        if self.directions is None or not tensors:
            return
        momentum, lr = group["momentum"], group["lr"]
        # `found_inf` is 1 on the device if this step is to be skipped (as for fused Adam, without waiting for it).
        skipped = getattr(self, "found_inf", torch.zeros((), device=tensors[0].device))
        applied = 1.0 - skipped
        for tensor in tensors:
            gradient, slot = tensor.grad, self.state[tensor]["momentum_buffer"]
            assert gradient is not None
            gradient.masked_fill_(skipped.bool(), 0.0)
            slot.lerp_(gradient, (1.0 - momentum) * applied)
            gradient.lerp_(slot, momentum)
            tensor.mul_(1.0 - lr * group["weight_decay"] * applied)
        for piece in self.directions(tensors):
            piece.weight.addcmul_(piece.direction, applied, value=-lr * piece.scale)


def update_scale(rows: int, columns: int) -> float:
    """The factor for tall matrices, so that an update moves the outputs of any shape as far (Jordan, ibid.)."""
    return math.sqrt(max(1.0, rows / columns))


def cost(rows: int, columns: int) -> int:
    """FLOPs of `orthogonalize` by "standard"."""
    m, n = sorted((rows, columns))
    return STEPS * (4 * m * m * n + 2 * m**3)
