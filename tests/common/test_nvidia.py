"""What the driver says about GPUs. A fake nvidia-smi plays the driver; torch is the real one, without CUDA."""

import re
import sys
from pathlib import Path

import pytest
import torch

from kogpt.common.nvidia import nvidia_smi, unusable_gpus

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a usable GPU")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that lists two GPUs under an old driver, in front of the PATH."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Tesla V100-SXM2-16GB, 535.54.03'\necho 'Tesla V100-SXM2-16GB, 535.54.03'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


def test_gpus_that_torch_cannot_use_are_named(driver: Path) -> None:
    problem = unusable_gpus()
    assert problem is not None
    assert problem.startswith("2 x Tesla V100-SXM2-16GB cannot be used")
    assert "CPU build" in problem or "535.54.03" in problem


def test_windows_gets_torch_for_cuda_from_its_makers(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "torch, built for CUDA, from https://pytorch.org" in (unusable_gpus() or "")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "torch, built for a CUDA that the driver supports, from https://pytorch.org" in (unusable_gpus() or "")


OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver."
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
BUSY = "CUDA error: CUDA-capable device(s) is/are busy or unavailable"


def break_gpus(monkeypatch: pytest.MonkeyPatch, failure: str | None, capability: tuple[int, int] = (7, 0)) -> list[int]:
    """torch counts two GPUs, whose use fails like this (None: it does not). Returns the numbers of those tried."""
    tried = []

    def ones(*shape: int, device: torch.device) -> torch.Tensor:
        assert device.type == "cuda"
        tried.append(device.index)
        if failure is not None:
            raise torch.AcceleratorError(f"{failure}\nCUDA kernel errors might be asynchronously reported")
        return torch.zeros(shape)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return tried


@pytest.mark.parametrize(
    ("failure", "capability", "said"),
    [
        (OLD_DRIVER, (7, 0), "torch was built for CUDA 13.0, which driver 535.54.03 does not support"),
        (NO_KERNEL, (7, 0), "has no kernels for it .* run `UV_TORCH_BACKEND=cu126 make install`"),
        (NO_KERNEL, (12, 0), "has no kernels for it .* run `make install`"),
        (BUSY, (8, 0), r"busy or unavailable\); another program may occupy it"),
    ],
)
def test_gpus_that_torch_counts_but_cannot_use(
    failure: str, capability: tuple[int, int], said: str, driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once DeepSpeed is imported, torch counts those of an old driver. It always counts those it has no kernels for."""
    tried = break_gpus(monkeypatch, failure, capability)
    assert re.search(f"2 x Tesla V100-SXM2-16GB cannot be used.*{said}", unusable_gpus(1) or "")
    assert tried == [1], "a rank leaves no context on the GPU of another one"
    driver.unlink()
    assert "The GPU cannot be used" in (unusable_gpus() or ""), "without nvidia-smi"


def test_a_gpu_that_computes_is_usable(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_gpus(monkeypatch, None)
    assert unusable_gpus() is None


def test_hidden_gpus_are_not_missed(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert unusable_gpus() is None


def test_a_driver_that_does_not_answer_has_no_gpus(driver: Path) -> None:
    driver.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert nvidia_smi("name") == []
    assert unusable_gpus() is None


def test_no_driver_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi("name") == []
