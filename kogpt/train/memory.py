"""Memory that training needs on each rank. Numbers in, numbers out.

What the weights and activations of a model take is its configuration's to say (kogpt.model.config); here is how
ZeRO divides it.
"""

from dataclasses import asdict, dataclass
from typing import Literal

from kogpt.model.config import ModelConfig, Precision


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank needs. Left out: the allocator's loss, ZeRO's communication buckets, CUDA itself."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = [f"{name} {size / 2**30:.2f}" for name, size in asdict(self).items()]
        return f"{self.total / 2**30:.2f} GiB: {', '.join(parts)}"


def memory_per_rank(
    config: ModelConfig,
    *,
    stage: Literal[0, 1, 2, 3],
    world_size: int,
    precision: Precision,
    micro_batch: int,
    seq_len: int,
    offload_optimizer: bool = False,
) -> Memory:
    """Training with Adam under a ZeRO stage (Rajbhandari et al. 2020, section 3).

    Bytes per parameter on each of N ranks, weights + gradients + optimizer:
    bf16 and fp16 (float32 masters in the optimizer): 2 + 2 + 12; fp32 and autocast: 4 + 4 + 8. Stage 1
    divides the optimizer by N, stage 2 the gradients too, stage 3 all. For bf16 that gives 4 + 12/N, 2 + 14/N,
    16/N; for fp32 8 + 8/N, 4 + 12/N, 16/N. `offload_optimizer` moves its share to the host.
    """
    half = precision in ("bf16", "fp16")
    weights = 2 if half else 4
    count = config.parameter_count

    def share(bytes_each: int, divided: bool) -> int:
        return -(-count * bytes_each // (world_size if divided else 1))

    return Memory(
        parameters=share(weights, stage == 3),
        gradients=share(weights, stage >= 2),
        optimizer=0 if offload_optimizer else share(16 - 2 * weights, stage >= 1),
        activations=config.activation_bytes(precision=precision, micro_batch=micro_batch, seq_len=seq_len),
    )
