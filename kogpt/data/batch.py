"""The micro-batch that goes from the loader to the loss."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Tensors on one device, int64 but for `documents`.

    `positions` is None if they count from 0 in each row; `documents` is None if a row is one stream.
    """

    ids: Tensor
    """Tokens, [B, T]."""
    targets: Tensor
    """The token that follows each of them, [B, T]; `kogpt.model.loss.IGNORED` if it is not scored."""
    positions: Tensor | None = None
    """Position of each token, [T] or [B, T]."""
    documents: Tensor | None = None
    """Where each document begins in the rows, one after the other, and last the number of their tokens, [N + 1] int32.

    A document ends with its row. Tokens attend only within their own document."""
