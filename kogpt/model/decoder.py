"""What training, evaluation, generation and checkpoints may ask of a model, whatever its architecture.

An architecture derives from `Decoder` and lives in one file, `kogpt/model/NAME.py`, which reads on its own. Nobody
else knows the names of its parameters.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kogpt.model.config import ModelConfig
from kogpt.model.kv_cache import KVCache


class Decoder(nn.Module, ABC):
    """A decoder-only language model."""

    VOCABULARY: ClassVar[tuple[str, ...]]
    """Names of the parameters [V, ...] whose rows are the tokens: the embedding and, unless it is tied, the head."""

    config: ModelConfig
    blocks: nn.ModuleList
    """The layers, in order."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where its input has to be."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights, and of a cache for it."""
        return next(self.parameters()).dtype

    @abstractmethod
    def hidden(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Token ids [B, T] int64 to what the head reads, [B, T, C].

        `positions` [T] or [B, T] int64 count from 0 in each row unless given. With `documents` [B, T] int64, tokens
        attend within their own document alone; None: a row is one stream. With a cache, the tokens follow what is in
        it, and the positions are the cache's.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """[.., C] to [.., V]."""

    @abstractmethod
    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits [B, T, V], or with targets [B, T] int64 (`IGNORED` = not scored) their summed nll, float32."""

    @abstractmethod
    def token_nll(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of every target, [B, T] float32 in nats; 0 where it is `IGNORED`. No gradients."""
