"""Numerical settings of torch: TF32, attention kernels, determinism. They change torch's global state.

- TF32: GPUs compute float32 matrix products in TF32 (10 bits of mantissa instead of 23, up to ten times as fast) in
  training, `kogpt evaluate`, and `kogpt generate`. CPUs compute in full float32.
- Attention: training on a GPU never creates the T x T matrix of scores. It uses the flash kernel if the card has it,
  else the memory-efficient kernel, which every card has. torch's plain formula is excluded, and so is cuDNN's kernel,
  which at some lengths has gradients that are not numbers if there is a mask (pytorch issues 196678 and 169849). Where
  tokens attend within their article, flash takes the articles' borders (kogpt.model.attention). Without flash, each
  window has a T x T mask.
- Determinism: see `be_deterministic`.
"""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

FUSED_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
"""In order of preference."""


def allow_tf32() -> None:
    """Compute float32 matrix products on GPUs in TF32. Does nothing without a GPU."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")


def fused_attention(device: torch.device) -> AbstractContextManager[None]:
    """A context for training. On a CPU torch chooses the kernel: its flash kernel has no dropout."""
    return sdpa_kernel(FUSED_ATTENTION, set_priority=True) if device.type == "cuda" else nullcontext()


def be_deterministic() -> None:
    """Make the same command on the same machine bit-identical, also on a GPU. Call it before using the GPU.

    Otherwise a GPU sums some gradients (embeddings, flash attention) in the order in which its threads finish. An
    operation without a deterministic form raises `RuntimeError`.
    """
    import torch._inductor.config as inductor

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # never read
    torch.backends.cudnn.benchmark = False
    inductor.deterministic = True
