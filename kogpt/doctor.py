"""Check what kogpt needs on this machine, and say what to do if something is missing. Out: a list of `Finding`.

`kogpt doctor` prints one line each. It changes nothing, and starts only the analyzer's JVM. It takes about ten seconds.
"""

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kogpt.common import system
from kogpt.common.cores import usable_cores
from kogpt.common.device import best_device, has_bf16, has_fp16
from kogpt.common.host_memory import host_memory
from kogpt.common.nvidia import nvidia_smi, unusable_gpus

GIB = 2**30
PYTHON = (3, 11)
LEAST_DISK_GIB, LEAST_MEMORY_GIB, LEAST_SHM_GIB = 5, 3, 0.5
ANALYZER_SECONDS = 120
RAY_SECONDS = 10
_ANALYSE = (
    "from kogpt.tokenizer.analyzers.load import load_analyzer as a; print(a('kkma').analyze('나는 간다').morphemes)"
)


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, what was found, and what to do if it is not as it should be."""

    subject: str
    found: str
    mend: str | None = None

    def __str__(self) -> str:
        line = f"{'OK ' if self.mend is None else 'FIX'}  {self.subject}: {self.found}"
        return line if self.mend is None else f"{line}; {self.mend}"


def examine(folder: Path) -> Iterator[Finding]:
    """All checks. `folder` is where corpora and runs will be written."""
    yield _python()
    yield from _torch()
    yield _cores()
    yield _memory()
    yield _shared_memory()
    yield _disk(folder)
    yield _kkma()
    yield _ray()
    yield _deepspeed()
    yield _wandb()


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.platform(terse=True)} ({platform.machine()})"
    old = sys.version_info < PYTHON
    mend = f"install Python 3.11 or later and run `{system.install_command()}` again"
    return Finding("Python", found, mend if old else None)


def _torch() -> Iterator[Finding]:
    """torch, the driver, each GPU, half precision, and the compiler."""
    import torch

    from kogpt.train.compile import obstacle

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    yield Finding("torch", f"{torch.__version__}, built for {build}")
    yield _nvidia()
    device = best_device()
    if device.type == "cuda":
        yield from _gpus()
    found = "yes" if has_bf16(device) else f"no; training uses {'fp16' if has_fp16(device) else 'fp32'}"
    yield Finding(f"bf16 on this {'CPU' if device.type == 'cpu' else 'GPU'}", found)
    problem = obstacle(2, device.type)
    if device.type == "cuda":
        yield Finding("torch.compile", problem or "ready", problem and "without it, training is slower")
    else:
        yield Finding("torch.compile", problem or "ready (off without an NVIDIA GPU, unless --compile on)")


def _nvidia() -> Finding:
    """The GPUs that the driver sees, and why torch does not count them. `_gpus` tries those that it counts."""
    if not (gpus := nvidia_smi("name,driver_version")):
        return Finding("NVIDIA GPUs", "none; kogpt uses the CPU")
    counted = best_device().type == "cuda"
    return Finding("NVIDIA GPUs (name, driver)", "; ".join(gpus), None if counted else unusable_gpus())


def _gpus() -> Iterator[Finding]:
    import torch

    from kogpt.train.gpu_peaks import peak_flops

    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        if problem := unusable_gpus(index):
            yield Finding(f"GPU {index}", about.name, problem)
            continue
        free, total = torch.cuda.mem_get_info(index)
        peak = peak_flops(about.name, "bf16") or peak_flops(about.name, "fp16")
        stated = f"{peak / 1e12:.0f} TFLOP/s" if peak else "peak unknown, so MFU is not shown"
        yield Finding(
            f"GPU {index}",
            f"{about.name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free, "
            f"compute capability {about.major}.{about.minor}, {stated}",
        )


def _cores() -> Finding:
    return Finding("CPU cores", f"{usable_cores()} of {os.cpu_count()} may be used here")


def _memory() -> Finding:
    free, total = host_memory()
    mend = f"close programs, or give the container or job more, until {LEAST_MEMORY_GIB} GiB are available"
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB available"
    return Finding("memory", found, mend if free < LEAST_MEMORY_GIB * GIB else None)


def _shared_memory() -> Finding:
    """Ray's object store and NCCL's buffers are in /dev/shm, of which containers get 64 MiB by default."""
    place = Path("/dev/shm")
    if not place.is_dir():
        return Finding("/dev/shm", "none on this system")
    free = shutil.disk_usage(place).free
    mend = "start the container with --shm-size=8g" if free < LEAST_SHM_GIB * GIB else None
    return Finding("/dev/shm", f"{free / GIB:.1f} GiB free", mend)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    mend = f"free {LEAST_DISK_GIB} GiB, or work in another folder" if free < LEAST_DISK_GIB * GIB else None
    return Finding("disk", f"{free / GIB:.1f} GiB free in {folder}", mend)


def _kkma() -> Finding:
    """A real analysis in a separate process, because a JVM cannot be stopped."""
    try:
        done = subprocess.run(
            [sys.executable, "-X", "utf8", "-c", _ANALYSE],
            capture_output=True,
            encoding="utf-8",
            timeout=ANALYZER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Finding("Kkma", f"no answer within {ANALYZER_SECONDS} s", "close other programs and try again")
    if done.returncode == 0:
        return Finding("Kkma", f"나는 간다 -> {done.stdout.strip()}")
    reason = (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]
    return Finding("Kkma", reason, f"run `{system.install_command()}` again, or use --analyzer kiwi or none")


def _ray() -> Finding:
    """Whether the cluster that $RAY_ADDRESS names answers; nothing is started."""
    if not system.RUNS_RAY:
        return Finding("Ray", "preprocessing on Windows runs in WSL2 (docs/windows.md)")
    if not system.has_ray():
        return Finding("Ray", "not installed", f"run `{system.install_command()}` again; preprocessing needs it")
    if not (address := os.environ.get("RAY_ADDRESS", "")):
        return Finding("Ray", "no cluster in RAY_ADDRESS: preprocessing starts Ray on this machine, or joins its own")
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if not (separator and port.isdigit()):  # Ray's own words: auto, local
        return Finding("Ray", f"RAY_ADDRESS is {address}")
    try:
        socket.create_connection((host, int(port)), timeout=RAY_SECONDS).close()
    except (OSError, ValueError) as error:
        return Finding("Ray", f"{address} does not answer ({error})", "start the cluster, or unset RAY_ADDRESS")
    return Finding("Ray", f"the cluster at {address} answers")


def _deepspeed() -> Finding:
    if not system.has_deepspeed():
        return Finding("DeepSpeed", "not installed; training uses one device, in fp32 or bf16, without it")
    return Finding("DeepSpeed", "installed; training may use several GPUs, ZeRO, and fp16")


def _wandb() -> Finding:
    from kogpt.common.wandb import logged_in

    if logged_in():
        return Finding("Weights & Biases", "logged in; runs are logged online")
    return Finding(
        "Weights & Biases", "not logged in; runs are logged offline (upload them with `wandb login` and `wandb sync`)"
    )
