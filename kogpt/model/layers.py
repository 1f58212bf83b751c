"""Layers and masks that several architectures share."""

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


def document_mask(documents: Tensor) -> Tensor:
    """The causal attention mask for windows of several documents: a token attends only within its own document.

    In: the document number of each token, [B, T] int64. Out: [B, 1, T, T] bool, True = may attend.
    """
    length = documents.size(1)
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return ((documents[:, :, None] == documents[:, None, :]) & causal)[:, None]
