"""Activation checkpointing: recompute the activations of a block in the backward pass. In: a model, changed in place.

Only the input of each block is kept, and the activations of one block at a time. This takes a third more computation.
Random numbers are replayed, so losses are bit-identical on a CPU. Source: Chen et al. 2016.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kogpt.model.decoder import Decoder


def checkpoint_blocks(model: Decoder) -> None:
    """Wrap every block. Call it before they are compiled. Forward passes without gradients do not change."""
    for block in model.blocks:
        block.forward = partial(_forgetful, block.forward)


def _forgetful(forward: Callable[..., Tensor], *inputs: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
