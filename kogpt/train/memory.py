"""What training costs: FLOPs per token, the peaks of real GPUs, memory per rank. Numbers in, numbers out.

FLOPs per token = 6 N + 12 L C T (forward and backward; N parameters without the position table, L layers, C
wide, T ids of context): PaLM, appendix B (Chowdhery et al. 2022), which nanoGPT and most others report MFU by.
The head is in N because it is tied to the embedding; the causal mask is not taken off. MFU is FLOPs per token
times tokens/s over the peak of the GPUs.
"""

import re
from dataclasses import dataclass
from typing import Literal

from kogpt.model.gpt2 import GPTConfig

Dtype = Literal["bf16", "fp16", "fp32"]
Precision = Literal["fp32", "autocast", "bf16", "fp16"]


def parameter_count(config: GPTConfig) -> int:
    """Parameters of the model, the tied matrix counted once."""
    width, bias = config.n_embd, int(config.bias)
    block = 12 * width * width + bias * 9 * width + 2 * (1 + bias) * width
    embeddings = (config.vocab_size + config.max_seq_len) * width
    return embeddings + config.n_layer * block + (1 + bias) * width


def flops_per_token(config: GPTConfig, seq_len: int) -> int:
    """FLOPs that training spends on one token at a context of `seq_len` ids; see the header."""
    parameters = parameter_count(config) - config.max_seq_len * config.n_embd
    return 6 * parameters + 12 * config.n_layer * config.n_embd * seq_len


# Dense peaks in TFLOP/s as the maker states them: matrix units with float32 accumulation for fp16 and bf16
# (the figures "with sparsity" are twice these), plain units for fp32 (torch does not use TF32 unless told).
# From NVIDIA's data sheets of each product; the GeForce and RTX cards from the tables of the GA102, Ada and
# RTX Blackwell whitepapers. Compared with torchtitan's table (A100, H100, H200, B200, L40S) and Lightning's (V100, T4,
# A100, H100): equal. None: the GPU has no such unit. A pattern must match the whole name, so
# that laptop variants, MIG slices and cut-down models stay unknown instead of being taken for another.
_PEAKS: list[tuple[str, dict[Dtype, float | None]]] = [
    (r"V100-SXM2-(16|32)GB", {"bf16": None, "fp16": 125, "fp32": 15.7}),
    (r"V100-PCIE-(16|32)GB", {"bf16": None, "fp16": 112, "fp32": 14}),
    (r"V100S-PCIE-32GB", {"bf16": None, "fp16": 130, "fp32": 16.4}),
    (r"T4", {"bf16": None, "fp16": 65, "fp32": 8.1}),
    (r"A10", {"bf16": 125, "fp16": 125, "fp32": 31.2}),
    (r"A30", {"bf16": 165, "fp16": 165, "fp32": 10.3}),
    (r"A40", {"bf16": 149.7, "fp16": 149.7, "fp32": 37.4}),
    (r"A100-SXM4-(40|80)GB|A100-PCIE-40GB|A100 80GB PCIe", {"bf16": 312, "fp16": 312, "fp32": 19.5}),
    (r"RTX A6000", {"bf16": 154.8, "fp16": 154.8, "fp32": 38.7}),
    (r"RTX 3090", {"bf16": 71, "fp16": 71, "fp32": 35.6}),
    (r"L4", {"bf16": 121, "fp16": 121, "fp32": 30.3}),
    (r"L40", {"bf16": 181, "fp16": 181, "fp32": 90.5}),
    (r"L40S", {"bf16": 362, "fp16": 362, "fp32": 91.6}),
    (r"RTX 4080", {"bf16": 97.5, "fp16": 97.5, "fp32": 48.7}),
    (r"RTX 4090", {"bf16": 165.2, "fp16": 165.2, "fp32": 82.6}),
    (r"RTX 5080", {"bf16": 112.6, "fp16": 112.6, "fp32": 56.3}),
    (r"RTX 5090", {"bf16": 209.5, "fp16": 209.5, "fp32": 104.8}),
    (r"H100 PCIe", {"bf16": 756, "fp16": 756, "fp32": 51}),
    (r"H100 NVL|H200 NVL", {"bf16": 835, "fp16": 835, "fp32": 60}),
    (r"H100 80GB HBM3|H800|H200|GH200 (480|120)GB", {"bf16": 989, "fp16": 989, "fp32": 67}),
    (r"B200", {"bf16": 2250, "fp16": 2250, "fp32": 75}),
]


def peak_flops(device_name: str, dtype: Dtype) -> float | None:
    """Peak FLOP/s of a GPU by the name that torch gives it; None (unknown) rather than a guess."""
    name = re.sub(r"\b(NVIDIA|Tesla|GeForce)\b", "", device_name).strip()
    for pattern, peaks in _PEAKS:
        if re.fullmatch(pattern, name):
            peak = peaks[dtype]
            return None if peak is None else peak * 1e12
    return None


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


def memory_per_rank(
    config: GPTConfig,
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
    count = parameter_count(config)

    def share(bytes_each: int, divided: bool) -> int:
        return -(-count * bytes_each // (world_size if divided else 1))

    return Memory(
        parameters=share(weights, stage == 3),
        gradients=share(weights, stage >= 2),
        optimizer=0 if offload_optimizer else share(16 - 2 * weights, stage >= 1),
        activations=activation_bytes(config, precision=precision, micro_batch=micro_batch, seq_len=seq_len),
    )


def activation_bytes(config: GPTConfig, *, precision: Precision, micro_batch: int, seq_len: int) -> int:
    """What the forward pass keeps for the backward pass, with attention that keeps no T x T matrix.

    In widths C per token and layer: two norm inputs and outputs 4, query, key, value 3, attention's output 1, the
    MLP's two inner tensors 8: 16, and 2 more dropout masks where there is dropout. Autocast keeps the
    residual stream and the norms' outputs in float32 beside the half-precision copies that the matrices read. After
    the blocks: the last norm and the gradients that the chunked loss holds for it and for the head.
    """
    tokens, width = micro_batch * seq_len, config.n_embd
    size = 4 if precision == "fp32" else 2
    layer = 16 * size * width
    if precision == "autocast":
        layer += 2 * 2 * width  # the two norm inputs are float32, their outputs are kept in half precision
    if config.dropout:
        layer += 2 * width
    head = (3 * tokens + config.vocab_size) * width * size
    return tokens * layer * config.n_layer + head
