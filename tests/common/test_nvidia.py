"""What the driver says about GPUs. A fake nvidia-smi plays the driver; torch is the real one, without CUDA."""

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
