"""The base class of model configurations: the shape of a model, and what it costs. Arithmetic only.

Every architecture derives a frozen dataclass from `ModelConfig`. Training, generation, and checkpoints take parameter
counts, FLOPs, and memory from it. They never compute them from layers and widths themselves.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

Precision = Literal["fp32", "autocast", "bf16", "fp16"]
"""The precision of training. "autocast" means fp32 weights with matrix products in bf16."""


@dataclass(frozen=True)
class ModelConfig(ABC):
    """The shape of a decoder-only language model. Invalid values raise a `ValueError` that lists all problems."""

    arch: ClassVar[str]
    """The name in checkpoints and in `kogpt.model.registry`."""
    any_context: ClassVar[bool] = False
    """Do the weights fit every `max_seq_len`? Those of learned positions do not."""

    vocab_size: int
    max_seq_len: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if problems := self.problems():
            raise ValueError(f"{type(self).__name__}: {'; '.join(problems)}")

    def problems(self) -> list[str]:
        """One clause for each invalid value."""
        problems = [
            f"{name} is {getattr(self, name)}, must be at least 1"
            for name in ("vocab_size", "max_seq_len", "n_layer", "n_head", "n_embd")
            if getattr(self, name) < 1
        ]
        if not 0.0 <= self.dropout < 1.0:
            problems.append(f"dropout is {self.dropout}, must be in [0, 1)")
        return problems

    def to_dict(self) -> dict[str, Any]:
        """The architecture's name ("arch") and every field, as stored in a checkpoint's config.json."""
        return {"arch": self.arch, **asdict(self)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `to_dict`, for fields without "arch"."""
        return cls(**fields)

    @classmethod
    @abstractmethod
    def shape_of_depth(cls, depth: int) -> dict[str, Any]:
        """The fields of a model of `depth` layers and a width of 64 per layer."""

    @property
    @abstractmethod
    def parameter_count(self) -> int:
        """The number of parameters. A tied matrix counts once."""

    @abstractmethod
    def flops_per_token(self, seq_len: int) -> int:
        """FLOPs of the forward and backward pass for one token, with windows of `seq_len` tokens."""

    @abstractmethod
    def activation_bytes(self, *, precision: Precision, micro_batch: int, seq_len: int) -> int:
        """Bytes that the forward pass keeps for the backward pass, if attention does not keep a T x T matrix."""

    @abstractmethod
    def kv_cache_shape(self, batch: int) -> tuple[int, int, int, int, int]:
        """Shape of the cached keys, and of the values: [layer, batch, KV head, max_seq_len, head size]."""
