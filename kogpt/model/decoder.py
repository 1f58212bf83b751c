"""The interface of a model for training, evaluation, generation, and checkpoints, whatever its architecture.

An architecture derives from `Decoder` in a file of its own, `kogpt/model/NAME.py`. Apart from its adapter in
kogpt.hub, no other code knows the names of its parameters.
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
    """Names of the parameters with one row per token, [V, ...]: the embedding, and the head if it is not tied."""
    STACKED: ClassVar[dict[str, int]] = {}
    """Parameters, by the end of their names, that are several matrices of one shape above each other; how many."""

    config: ModelConfig
    draft: "Decoder | None" = None
    """A copy that computes nearly the same in less time. Only models for decoding have one (kogpt.model.packed)."""
    blocks: nn.ModuleList
    """The layers, in order."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def initialise(self, name: str, parameter: Tensor) -> None:
        """Fill a new parameter of this name from torch's global generator; what it held before does not matter."""

    @torch.no_grad()
    def _initialise_all(self) -> None:
        """Call `initialise` for each parameter, in their order. The end of every architecture's `__init__`."""
        for name, parameter in self.named_parameters():
            self.initialise(name, parameter)

    @property
    def device(self) -> torch.device:
        """The device of its weights, which its inputs must be on."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights, which its KV cache must have."""
        return next(self.parameters()).dtype

    @abstractmethod
    def hidden(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """The hidden states [B, T, C] that the head reads, for tokens [B, T] int64.

        `positions`, [T] or [B, T] int64, count from 0 in each row by default. With `documents`, [N + 1] int32, tokens
        attend only within their own document; without it, within the whole row (`kogpt.data.batch.Batch`). With a
        cache, the tokens continue what it holds, and the positions come from it.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [.., V] of hidden states [.., C]."""

    @abstractmethod
    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits [B, T, V]; with targets [B, T] int64 (`IGNORED` = not scored) their summed nll, a float32 scalar."""

    @abstractmethod
    def token_nll(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The nll of every target, [B, T] float32 in nats, 0 if it is `IGNORED`. Computes no gradients."""
