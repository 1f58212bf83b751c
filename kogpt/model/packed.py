"""Weights laid out for decoding on a CPU: faster products, and rows that do not depend on one another.

In: a model. Out: a copy whose linear layers and head are on oneDNN's packed weights; all other weights are shared.

A step of decoding multiplies few rows (one per sequence) by every matrix. For so few, F.linear takes about twice as
long as oneDNN on weights in its own layout, and rounds differently for other numbers of rows. With packed weights every
row comes out the same to the bit, alone and among others (tests/model/test_packed.py), if the widths of the layers are
multiples of 32: torch computes an activation's last elements in another way than its others. Memory: each matrix once
more. Cost: one pass over the weights. Without oneDNN, on a GPU, and in other precisions the model stays as it is.
"""

import copy

import torch
from torch import Tensor, nn

from kogpt.model.decoder import Decoder
from kogpt.model.layers import VocabMatrix


def packed(model: Decoder) -> Decoder:
    """The model, for decoding only, if the machine can: a packed copy. It does not follow later changes of weights."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    made = copy.deepcopy(model, shared)
    for module in list(made.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, _Linear(child.weight, child.bias))
            elif isinstance(child, VocabMatrix):
                setattr(module, name, _Vocab(child))
    return made


class _Linear(nn.Module):
    """`nn.Linear` on packed weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        # 2 rows: for 1 the layout would be that of a matrix-vector product, which sums in another order.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 2)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class _Vocab(nn.Module):
    """`VocabMatrix` whose logits are on packed weights."""

    def __init__(self, matrix: VocabMatrix) -> None:
        super().__init__()
        self.matrix = matrix
        self.head: _Linear | None = None  # made when it is needed: an embedding may not be the head

    def forward(self, x: Tensor, use: str, targets: Tensor | None = None) -> Tensor:
        if use != "logits":
            return self.matrix(x, use, targets)
        if self.head is None:
            self.head = _Linear(self.matrix.weight)
        return self.head(x)
