"""Parts that several architectures share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogpt.model.loss import linear_cross_entropy, linear_nll


class VocabMatrix(nn.Module):
    """A matrix [V, C] with a row for each token: an embedding, a head, or (tied) both.

    Every use is a call of this module, because ZeRO 3 gathers a partitioned weight when its module is called, and
    only then. `use` is one of
    - "embed": token ids [..] to vectors [.., C];
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
            # Cast once, here: inside the loss it would happen once per chunk.
            dtype = torch.get_autocast_dtype(x.device.type)
            hidden, weight = hidden.to(dtype), weight.to(dtype)
        if use == "loss" and torch.is_grad_enabled():
            return linear_cross_entropy(hidden, weight, targets.flatten())
        nll = linear_nll(hidden, weight, targets.flatten())
        return nll.sum() if use == "loss" else nll.view(targets.shape)


def document_mask(documents: Tensor) -> Tensor:
    """Which tokens may attend to which, where a window holds several documents: themselves and before, in their own.

    In: the number of each token's document, [B, T] int64. Out: [B, 1, T, T] bool, True = may attend.
    """
    length = documents.size(1)
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return ((documents[:, :, None] == documents[:, None, :]) & causal)[:, None]
