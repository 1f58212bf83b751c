"""What goes from a loader to the loss: one micro-batch."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Tensors of one device, all int64.

    `positions` is None where they count from 0 in each row, `documents` None where a row is one stream.
    """

    ids: Tensor
    """Tokens, [B, T]."""
    targets: Tensor
    """The token that follows each of them, [B, T]; `kogpt.model.loss.IGNORED` where none is scored."""
    positions: Tensor | None = None
    """Position of each token in its document, [T] or [B, T]."""
    documents: Tensor | None = None
    """Number of each token's document, [B, T]: tokens of one row attend within their own document alone."""
