"""TF32 on GPUs, attention kernels without a T x T matrix, and `--deterministic`."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode

from kogpt.common.numerics import FUSED_ATTENTION, allow_tf32, fused_attention
from kogpt.model.gpt2 import GPT, GPTConfig


class _Called(TorchDispatchMode):
    """The names of the operations that run, and the largest number of elements that one of them made."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names.add(str(func))
        self.largest = max([self.largest, *(t.numel() for t in [result] if isinstance(t, torch.Tensor))])
        return result


@pytest.mark.parametrize("precision", ["fp32", "autocast"])
def test_a_cpu_trains_with_flash_attention(precision: str) -> None:
    config = GPTConfig(vocab_size=50, max_seq_len=512, n_layer=1, n_head=2, n_embd=16)
    model = GPT(config)
    ids, targets = torch.randint(50, (2, 1, 512))
    with _Called() as called, torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        model(ids, targets).backward()
    assert "aten._scaled_dot_product_flash_attention_for_cpu.default" in called.names
    assert "aten._scaled_dot_product_flash_attention_for_cpu_backward.default" in called.names
    assert called.largest < 512 * 512


def test_a_gpu_is_offered_fused_kernels_alone_flash_first() -> None:
    before = torch._C._get_sdp_priority_order()
    with fused_attention(torch.device("cuda")):
        assert torch._C._get_sdp_priority_order()[:2] == [int(backend) for backend in FUSED_ATTENTION]  # type: ignore[call-overload]
        assert not torch.backends.cuda.math_sdp_enabled()
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
    assert torch._C._get_sdp_priority_order() == before
    assert FUSED_ATTENTION[0] == SDPBackend.FLASH_ATTENTION
    with fused_attention(torch.device("cpu")):
        assert torch.backends.cuda.math_sdp_enabled()


def test_tf32_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_tf32()
    if not torch.cuda.is_available():
        assert torch.get_float32_matmul_precision() == "highest"
    set_to: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", set_to.append)
    allow_tf32()
    assert set_to == ["high"]


def test_determinism() -> None:
    """In a process of its own: it is for the whole process."""
    program = (
        "import os, torch; from kogpt.common.numerics import be_deterministic\n"
        "be_deterministic()\nimport torch._inductor.config as inductor\n"
        "print(torch.are_deterministic_algorithms_enabled(), os.environ['CUBLAS_WORKSPACE_CONFIG'],"
        " inductor.deterministic)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", ":4096:8", "True"]
