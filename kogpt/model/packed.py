"""Weights laid out for decoding on a CPU: faster products, and rows that do not depend on one another.

In: a model. Out: a copy whose linear layers and head are on oneDNN's packed weights; all other weights are shared.

A step of decoding multiplies few rows (one per sequence) by every matrix. For so few, F.linear takes about twice as
long as oneDNN on weights in its own layout, and rounds differently for other numbers of rows. With packed weights every
row comes out the same to the bit, alone and among others (tests/model/test_packed.py), if the widths of the layers are
multiples of 32: torch computes an activation's last elements in another way than its others. Memory: each matrix once
more. Cost: one pass over the weights. Without oneDNN, on a GPU, and in other precisions the model stays as it is.
"""

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kogpt.model.decoder import Decoder
from kogpt.model.layers import RMSNorm, VocabMatrix

# Large pages: to read all weights for every token then takes a tenth to a fifth less time. torch looks at its start.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def packed(model: Decoder) -> Decoder:
    """The model, for decoding only, if the machine can: a packed copy. It does not follow later changes of weights."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return model
    shared: dict[int, Any] = {id(weight): nn.Parameter(weight.detach(), False) for weight in model.parameters()}
    made = copy.deepcopy(model, shared | {id(buffer): buffer for buffer in model.buffers()})
    _unwrap(made)
    return made


def _unwrap(module: nn.Module) -> Callable[..., Any]:
    """Make the module's parts plain attributes, which are found and called at once; the same for each part.

    nn.Module looks its parts up, and calls them, through Python code for hooks and training. In a step that takes two
    milliseconds this code would take a fifth of the time.
    """
    for name, child in module.named_children():
        parts = [_unwrap(part) for part in child] if isinstance(child, nn.ModuleList) else _unwrap(child)
        module.__dict__[name] = parts
    module.__dict__.update(module.named_parameters(recurse=False))
    if isinstance(module, nn.Linear):
        return _linear(module.weight, module.bias)
    if isinstance(module, nn.LayerNorm):
        shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
    if isinstance(module, RMSNorm):
        shape, weight, eps = module.weight.shape, module.weight, module.eps
        return lambda x: torch.rms_norm(x, shape, weight, eps)
    if isinstance(module, VocabMatrix):
        return _Vocab(module)
    return module.forward


def _linear(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """`nn.Linear` on packed weights."""
    # 2 rows: for 1 the layout would be that of a matrix-vector product, which sums in another order.
    matrix = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
    product = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: product(x, matrix, bias, "none", [], "")


class _Vocab:
    """`VocabMatrix` whose logits are on packed weights."""

    def __init__(self, matrix: VocabMatrix) -> None:
        self.matrix = matrix
        self.head: Callable[[Tensor], Tensor] | None = None  # made when needed: an embedding may not be the head

    def __call__(self, x: Tensor, use: str, targets: Tensor | None = None) -> Tensor:
        if use != "logits":
            return self.matrix.forward(x, use, targets)
        if self.head is None:
            self.head = _linear(self.matrix.weight)
        return self.head(x)
