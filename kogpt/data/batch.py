"""The micro-batch that goes from the loader to the loss."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Tensors on one device, all int64.

    `positions` is None if they count from 0 in each row; `documents` is None if a row is one stream.
    """

    ids: Tensor
    """Tokens, [B, T]."""
    targets: Tensor
    """The token that follows each of them, [B, T]; `kogpt.model.loss.IGNORED` if it is not scored."""
    positions: Tensor | None = None
    """Position of each token, [T] or [B, T]."""
    documents: Tensor | None = None
    """Number of each token's document, [B, T]. Tokens attend only within their own document."""
