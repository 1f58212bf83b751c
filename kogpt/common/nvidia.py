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


def unusable_gpus() -> str | None:
    """One sentence about GPUs that torch cannot use and what to do, or None.

    Hidden GPUs (an empty CUDA_VISIBLE_DEVICES) are not reported: the CPU is meant.
    """
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "unset") in ("", "-1", "NoDevFiles")
    if hidden or torch.cuda.is_available():
        return None
    if not (seen := nvidia_smi("name,driver_version")):
        return None
    name, driver = seen[0].split(", ")[:2]
    gpus = f"{len(seen)} x {name}" if len(seen) > 1 else name
    fitting = "CUDA" if torch.version.cuda is None else "a CUDA that the driver supports"
    another = (
        "remove .venv and run `make install` to get a build that fits"
        if sys.platform == "linux"
        else f"install the same version of torch, built for {fitting}, from https://pytorch.org"
    )
    if torch.version.cuda is None:
        return f"{gpus} cannot be used, because this torch is the CPU build; {another}"
    return (
        f"{gpus} cannot be used: torch was built for CUDA {torch.version.cuda}, which driver {driver} does not support "
        f"(CUDA 13 needs 580 or later); update the driver, or {another}"
    )
