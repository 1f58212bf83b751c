"""An estimate of the memory that training needs on each rank, as DeepSpeed 0.19.8 allocates it. Arithmetic only.

The configuration of a model knows its parameters and activations (kogpt.model.config). This module knows how ZeRO
partitions them. Bytes per parameter on each of N ranks, at the peak of a step:

    stage   fp32, autocast                      bf16, fp16                      with one micro-batch a step
    0       16                                  -                               -
    1       8 + 16/N                            8 + 14/N                        4 + 18/N
    2       4 + 20/N                            2 + 18/N                        2 + 20/N
    3       16/N + the larger of 4 + 4/N, 8/N   14/N + the larger of 2 + 4/N, 8/N   14/N + the larger of 2 + 2/N, 8/N

Autocast keeps a bf16 copy of each weight for the backward pass: 2 bytes more from the second micro-batch on, when the
gradients exist as well. In half precision, the gradients of several micro-batches are summed in fp32; stages 1 and 2
collect those of the rank's partition in half precision before. With one micro-batch, their partition is copied to fp32
during the update. In fp32, ZeRO keeps a second copy of the weights. Stage 3 gathers at most 10^9 weights at once.

Muon needs 4 bytes less for each parameter of the hidden matrices (one slot instead of two), and in its update 2.5
copies of the matrices that a rank orthogonalizes at once, 5.5 if they come from several ranks.

`tests/train/test_memory.py` counts the tensors that DeepSpeed allocates.
"""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from kogpt.model.config import ModelConfig, Precision

LIVE_PARAMETERS = 10**9
"""The most weights that ZeRO 3 gathers: DeepSpeed's stage3_max_live_parameters and stage3_max_reuse_distance."""
MUON_ROUND = 1 << 23
"""The most elements that one rank orthogonalizes at once with Muon, unless a single parameter has more."""
HEADROOM = {"cpu": 1.5, "gpu": 1.05}
"""Factor for the memory that an allocator cannot use. On CPUs it lies between the pieces in use (bench/LOG.md)."""
CHUNK_BYTES = 12
"""Bytes per logit in a chunk of the loss: in the model's precision, in fp32, its log-probability, its gradient."""


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank needs, without the allocator's losses and CUDA itself."""

    parameters: int
    gradients: int
    """Includes their copies during the update, and at ZeRO stage 3 the gathered weights."""
    optimizer: int
    activations: int
    buffers: int
    """The loss's chunk of logits, the gradient of the head before it is accumulated, and ZeRO's buckets."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def to_be_free(self, device: str) -> float:
        """Bytes that must be free on a device of this type, "cpu" or another one, for all this to fit."""
        return self.total * HEADROOM["cpu" if device == "cpu" else "gpu"]

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
    grad_accum: int = 1,
    offload_optimizer: bool = False,
    checkpoint_activations: bool = False,
    document_mask: bool = False,
    chunk_logits: int = 1 << 27,
    bucket_elements: int = 0,
    muon_parameters: int = 0,
) -> Memory:
    """The estimate for training with Adam (ZeRO: Rajbhandari et al. 2020, section 3). The header has the formulas.

    `muon_parameters` is the number of parameters that Muon updates instead.

    `offload_optimizer` moves the fp32 weights, the moments, and the summed gradients to the host. A `document_mask`
    (kogpt.model.layers) is [micro_batch, 1, seq_len, seq_len], once for all layers.
    """
    half = precision in ("bf16", "fp16")
    size, count, n = 2 if half else 4, config.parameter_count, world_size
    casts = 2 if precision == "autocast" and grad_accum > 1 else 0
    summed = half and grad_accum > 1
    whole, shared = {
        0: (4, 0),
        1: (6 if summed else size, 0 if summed else 6 if half else 4),
        2: (0, 4 if summed else 8),
        3: (0, 4 if summed else size),
    }[stage]
    held = size * count if stage < 3 else -(-size * count // n)
    optimizer = 8 * count - 4 * muon_parameters if stage == 0 else -((4 * muon_parameters - 12 * count) // n)
    gradients = whole * count - (-shared * count // n)
    if stage == 3:  # the larger of two moments: weights gathered, or copies made in the update
        gradients = max(gradients + size * min(count, LIVE_PARAMETERS), 8 * count // n)
    if offload_optimizer:
        optimizer, gradients = 0, size * count // (n if stage >= 2 else 1)
    round_size = 4 if precision in ("fp32", "fp16") else 2
    orthogonalized = (5 if n == 1 else 11) * round_size * min(MUON_ROUND, -(-muon_parameters // n)) // 2
    collected = -(-2 * count // n) if summed and stage in (1, 2) and not offload_optimizer else 0
    gradients += max(collected, orthogonalized)  # in the backward pass or in the update
    head = config.vocab_size * config.n_embd
    chunk = min(micro_batch * seq_len * config.vocab_size, max(chunk_logits, 128 * config.vocab_size))
    activations = _activations(config, precision, micro_batch, seq_len, checkpoint_activations)
    if document_mask:
        activations += micro_batch * seq_len**2 * (4 if precision == "fp32" else 2)
    return Memory(
        parameters=held + casts * count,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        buffers=CHUNK_BYTES * chunk + (8 + size) * head + size * bucket_elements,
    )


def _activations(config: ModelConfig, precision: Precision, micro_batch: int, seq_len: int, forgetful: bool) -> int:
    """With activation checkpointing (`forgetful`): all activations of one block, and the inputs of the others."""
    shape = {"precision": precision, "micro_batch": micro_batch, "seq_len": seq_len}
    if not forgetful:
        return config.activation_bytes(**shape)  # type: ignore[arg-type]
    stream = 2 if precision in ("bf16", "fp16") else 4
    one = replace(config, n_layer=1).activation_bytes(**shape)  # type: ignore[arg-type]
    return one + (config.n_layer - 1) * stream * micro_batch * seq_len * config.n_embd
