"""Weights laid out for decoding on a CPU: faster products, and rows that do not depend on one another.

In: a model. Out: a copy that computes the same in fewer calls, with its matrices on oneDNN's packed weights; all other
weights are shared.

A step of decoding multiplies few rows (one per sequence) by every matrix. For so few, F.linear takes about twice as
long as oneDNN on weights in its own layout, and rounds differently for other numbers of rows. With packed weights every
row comes out the same to the bit, alone and among others (tests/model/test_packed.py), if the widths of the layers are
multiples of 32: torch computes an activation's last elements in another way than its others.

A step of a small model takes two milliseconds, of which every call into torch and every module in Python is a part
that counts. So a module may have a method `decoding`, which gives a function that takes its place in the copy: for the
arguments of `forward` with a cache and without a mask, written out in as few calls as possible. It makes its matrices
with the function that it is given, because there are two copies: the model, and its `draft` with weights in fp16, which
takes half as long and guesses tokens for kogpt.generate.engine.

Memory: each matrix once more, and once in fp16 for the draft. Cost: one pass over the weights for each copy. Without
oneDNN, on a GPU, and in other precisions the model stays as it is. A small model (LEAST_FOR_A_DRAFT) has no draft, nor
has one without fbgemm (x86 with AVX2).
"""

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogpt.model.decoder import Decoder
from kogpt.model.layers import RMSNorm, VocabMatrix

# Large pages: to read all weights for every token then takes a tenth to a fifth less time. torch looks at its start.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

LEAST_FOR_A_DRAFT = 32 * 2**20
"""Bytes of a model's weights in fp32. Fewer stay in the CPU's cache, so that it saves little to read half of them:
models of width 128 and 256 (2 and 4 layers) were 0.94 and 0.95 to 1.15 times as fast with a draft (bench/LOG.md)."""
Layer = Callable[[Tensor], Tensor]
Linear = Callable[..., Layer]
"""`linear` or `linear_fp16`."""


def packed(model: Decoder) -> Decoder:
    """The model, for decoding only, if the machine can: a packed copy. It does not follow later changes of weights."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return model
    made = _copy(model, linear)
    size = sum(weight.nbytes for weight in model.parameters())
    if size >= LEAST_FOR_A_DRAFT and torch.backends.quantized.engine in ("x86", "fbgemm"):
        made.__dict__["draft"] = _copy(model, linear_fp16)
    return made


def _copy(model: Decoder, linear: Linear) -> Decoder:
    shared: dict[int, Any] = {id(weight): nn.Parameter(weight.detach(), False) for weight in model.parameters()}
    made = copy.deepcopy(model, shared | {id(buffer): buffer for buffer in model.buffers()})
    for name, part in made.named_children():  # a plain attribute is found at once, before those of nn.Module
        parts = [_function(each, linear) for each in (part if isinstance(part, nn.ModuleList) else [part])]
        made.__dict__[name] = parts if isinstance(part, nn.ModuleList) else parts[0]
    return made


def _function(module: nn.Module, linear: Linear) -> Callable[..., Any]:
    if isinstance(module, VocabMatrix):
        return _Vocab(module, linear)
    if isinstance(module, nn.Embedding):
        weight = module.weight
        return lambda ids: torch.embedding(weight, ids)
    if isinstance(module, nn.LayerNorm):
        return layer_norm(module)
    if isinstance(module, RMSNorm):
        return rms_norm(module.weight, module.eps)
    decoding: Any = getattr(module, "decoding", None)
    return module.forward if decoding is None else decoding(linear)


def linear(weight: Tensor, bias: Tensor | None = None, activation: str = "none", algorithm: str = "") -> Layer:
    """`nn.Linear` and then one of oneDNN's activations, for rows [N, in]."""
    matrix, product = _pack(weight), torch.ops.mkldnn._linear_pointwise.default
    return lambda x: product(x, matrix, bias, activation, [], algorithm)


def linear_fp16(weight: Tensor, bias: Tensor | None = None, activation: str = "none", algorithm: str = "none") -> Layer:
    """`linear`, nearly: the weights are rounded to fp16, so that there is half as much to read."""
    matrix = torch.ops.quantized.linear_prepack_fp16(weight, bias)
    product = torch.ops.quantized.linear_dynamic_fp16.default
    if activation == "gelu":
        return lambda x: F.gelu(product(x, matrix), approximate=algorithm)
    return lambda x: product(x, matrix)


def layer_norm(module: nn.LayerNorm) -> Layer:
    """`nn.LayerNorm`."""
    shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def rms_norm(weight: Tensor, eps: float) -> Layer:
    """`RMSNorm`. torch's own takes more calls."""
    return lambda x: (x * x.square().mean(-1, True).add_(eps).rsqrt_()).mul_(weight)


def _pack(weight: Tensor) -> Tensor:
    # 2 rows: for 1 the layout would be that of a matrix-vector product, which sums in another order.
    return torch.ops.mkldnn._reorder_linear_weight(weight, 2)


class _Vocab:
    """`VocabMatrix` as embedding and head, with logits on packed weights."""

    def __init__(self, matrix: VocabMatrix, linear: Linear) -> None:
        self.weight, self.linear = matrix.weight, linear
        self.head: Layer | None = None  # made when needed: an embedding may not be the head

    def __call__(self, x: Tensor, use: str) -> Tensor:
        if use == "embed":
            return torch.embedding(self.weight, x)
        if self.head is None:
            self.head = self.linear(self.weight)
        return self.head(x)
