"""Choose the device of a command: an NVIDIA GPU, else that of a Mac (mps), else the CPU. In: --device. Out: a device.

mps has no float64, which the draw of a token and the sum of a score need: they take place on the CPU. torch.compile is
off there unless it is asked for. bf16 needs macOS 14.
"""

from typing import TYPE_CHECKING

from kogpt.common.errors import UserError
from kogpt.common.nvidia import unusable_gpus

if TYPE_CHECKING:
    import torch


def choose_device(name: str | None) -> "torch.device":
    """The named device; without a name the best one. Raises `UserError` if it is unusable."""
    import torch

    from kogpt.common.numerics import allow_tf32

    try:
        device = best_device() if name is None else torch.device(name)
    except RuntimeError:
        raise UserError(
            f"--device {name} is not a device; give cpu, cuda, a numbered GPU such as cuda:0, or mps."
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: this machine has {torch.cuda.device_count()} usable GPUs; give --device cpu."
        )
    if device.type == "cuda" and (problem := unusable_gpus(device.index or 0)):
        raise UserError(f"{problem}; or give --device cpu.")
    try:
        torch.empty(0, device=device).add_(1).tolist()
    except (RuntimeError, NotImplementedError, AssertionError):
        raise UserError(f"--device {name} cannot be used here; give cpu or cuda.") from None
    allow_tf32()
    return device


def best_device() -> "torch.device":
    """The first NVIDIA GPU, else that of a Mac, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def has_bf16(device: "torch.device") -> bool:
    """Whether the hardware supports bf16. torch emulates it otherwise, on a CPU many times slower than fp32."""
    import torch

    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    if device.type == "cpu":
        offered = torch.cpu.get_capabilities()
        return any(offered.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last one: ARM
    return torch.cuda.is_bf16_supported(including_emulation=False)


def has_fp16(device: "torch.device") -> bool:
    """Whether DeepSpeed trains in fp16 there: on GPUs since Volta (its accelerator/cuda_accelerator.py)."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


def in_float64(value: "torch.Tensor") -> "torch.Tensor":
    """The values in float64: on their device if it has that type, else on the CPU."""
    return value.cpu().double() if value.device.type == "mps" else value.double()
