"""The NVIDIA GPUs of this machine according to their driver, and whether torch can use them."""

import os
import subprocess
import sys


def nvidia_smi(query: str) -> list[str]:
    """The lines of `nvidia-smi --query-gpu=QUERY`, one per GPU; [] without the program, a driver, or a GPU."""
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def unusable_gpus(index: int = 0) -> str | None:
    """One sentence about GPUs that torch cannot use and what to do, or None.

    Hidden GPUs (an empty CUDA_VISIBLE_DEVICES) are not reported: the CPU is meant. torch also counts GPUs for which its
    build has no kernels, and once DeepSpeed is imported, those of a driver that is too old. So GPU number `index` must
    compute something.
    """
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset") in ("", "-1", "NoDevFiles"):
        return None
    failure = ""
    if torch.cuda.is_available() and not (failure := _failure(index)):
        return None
    if not (seen := nvidia_smi("name,driver_version")) and not failure:
        return None
    name, driver = seen[0].split(", ")[:2] if seen else ("The GPU", "unknown")
    gpus = f"{len(seen)} x {name}" if len(seen) > 1 else name
    if "no kernel image" in failure:
        old = torch.cuda.get_device_capability(index) < (7, 5)
        mend = _another("CUDA 12.6", "UV_TORCH_BACKEND=cu126 ") if old else _another("a newer CUDA")
        return (
            f"{gpus} cannot be used: this torch, built for CUDA {torch.version.cuda}, has no kernels for it (CUDA 13 "
            f"needs compute capability 7.5 or later); {mend}"
        )
    if failure and "driver" not in failure:
        return f"{gpus} cannot be used ({failure}); another program may occupy it"
    if torch.version.cuda is None:
        return f"{gpus} cannot be used, because this torch is the CPU build; {_another('CUDA')}"
    return (
        f"{gpus} cannot be used: torch was built for CUDA {torch.version.cuda}, which driver {driver} does not support "
        f"(CUDA 13 needs 580 or later); update the driver, or {_another('a CUDA that the driver supports')}"
    )


def _another(built_for: str, setting: str = "") -> str:
    """How to get another build of torch."""
    if sys.platform == "linux":
        return f"remove .venv and run `{setting}make install` to get a build that fits"
    return f"install the same version of torch, built for {built_for}, from https://pytorch.org"


def _failure(index: int) -> str:
    """The first line of torch's error if this GPU cannot add two numbers, else an empty string."""
    import torch

    try:
        torch.ones(1, device=torch.device("cuda", index)).add_(1).tolist()
    except RuntimeError as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""
