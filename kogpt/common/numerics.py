"""How exactly a device computes: TF32, attention kernels, determinism. In: settings. Out: torch's global state.

- float32 products on GPUs run in TF32 (10 bits of mantissa instead of 23, up to ten times as fast), in training,
  `kogpt evaluate` and `kogpt generate` alike. On a CPU float32 is float32.
- Attention in training never makes the T x T matrix on a GPU: flash where the card has it, else cuDNN's, else the
  memory-efficient kernel, which every card has; torch's own formula is off, so that it cannot be taken by accident.
- Determinism: see `be_deterministic`.
"""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

FUSED_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
"""In order of preference."""


def allow_tf32() -> None:
    """Let float32 products on GPUs run in TF32; does nothing where there is no GPU."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")


def fused_attention(device: torch.device) -> AbstractContextManager[None]:
    """Around forward passes of training. CPUs choose themselves: their flash kernel knows no dropout."""
    return sdpa_kernel(FUSED_ATTENTION, set_priority=True) if device.type == "cuda" else nullcontext()


def be_deterministic() -> None:
    """The same bits from the same command on the same machine, also on a GPU; call before anything is on one.

    Without it a GPU sums some gradients (embeddings, flash attention) in the order in which its threads arrive. An
    operation that has no deterministic form raises `RuntimeError`.
    """
    import torch._inductor.config as inductor

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nobody reads it
    torch.backends.cudnn.benchmark = False
    inductor.deterministic = True
