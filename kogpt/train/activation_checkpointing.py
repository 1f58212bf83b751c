"""Forget a block's activations and compute them again in the backward pass. In: a model. Out: its blocks, changed.

What stays is the input of each block, and one block's activations at a time: a third more computation for a fraction of
the memory. Random numbers are replayed, so that losses are the same bits on a CPU. Source: Chen et al. 2016.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kogpt.model.decoder import Decoder


def checkpoint_blocks(model: Decoder) -> None:
    """Change the blocks in place; call it before they are compiled. Without gradients they run as before."""
    for block in model.blocks:
        block.forward = partial(_forgetful, block.forward)


def _forgetful(forward: Callable[..., Tensor], *inputs: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
