"""`kogpt doctor` on this machine, and on machines where something is missing."""

import re
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from kogpt import doctor
from kogpt.common import system
from kogpt.doctor import Finding, examine


def test_every_line_says_ok_or_the_mend(tmp_path: Path) -> None:
    lines = [str(finding) for finding in examine(tmp_path)]
    assert all(re.match(r"(OK |FIX)  [^:]+: .+", line) for line in lines)
    subjects = [line[5:].split(":")[0] for line in lines]
    for subject in (
        *("Python", "torch", "NVIDIA GPUs", "bf16 on this [CG]PU", "torch.compile", "CPU cores", "memory"),
        *("/dev/shm", "disk", "Kkma", "Ray", "DeepSpeed", "Weights & Biases"),
    ):
        assert any(re.match(subject, found) for found in subjects), subject
    assert any("나는 간다" in line for line in lines if line.startswith("OK "))


def test_a_small_shared_memory_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(64 << 20, 0, 64 << 20))
    assert "--shm-size" in (doctor._shared_memory().mend or "")
    assert "free" in (doctor._disk(Path()).mend or "")


def test_an_analyzer_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ANALYSE", "raise SystemExit('there is no Java')")
    assert doctor._kkma() == Finding("Kkma", "there is no Java", doctor._kkma().mend)
    assert doctor._kkma().mend is not None


class _Gpus:
    """Two GPUs, of which torch has no kernels for the first one."""

    class Properties(NamedTuple):
        name: str
        major: int
        minor: int

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        patch.setattr(torch.cuda, "get_device_properties", self.properties)
        patch.setattr(torch.cuda, "mem_get_info", self.memory)
        patch.setattr(doctor, "unusable_gpus", lambda index: None if index else "it cannot be used")

    def properties(self, index: int) -> Properties:
        return self.Properties("NVIDIA A100-SXM4-80GB", 8, 0) if index else self.Properties("Tesla V100", 7, 0)

    def memory(self, index: int) -> tuple[int, int]:
        assert index == 1, "on a GPU that cannot be used, this raises"
        return 70 << 30, 80 << 30


def test_each_gpu_is_ok_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    _Gpus(monkeypatch)
    first, second = doctor._gpus()
    assert first == Finding("GPU 0", "Tesla V100", "it cannot be used")
    assert str(second) == ("OK   GPU 1: NVIDIA A100-SXM4-80GB, 70 of 80 GiB free, compute capability 8.0, 312 TFLOP/s")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a usable GPU")
def test_gpus_without_a_torch_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 3060, 470.10'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert subprocess.run(["nvidia-smi"], capture_output=True).returncode == 0
    finding = doctor._nvidia()
    assert finding.found == "NVIDIA GeForce RTX 3060, 470.10"
    assert "make install" in (finding.mend or "")


def test_the_mend_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(system, "has_ray", lambda: False)
    assert "run `.venv/bin/python -m pip install" in (doctor._ray().mend or "")


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert doctor._ray().mend is None
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        listening.listen()
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert doctor._ray() == Finding("Ray", f"the cluster at {address} answers")
    assert "RAY_ADDRESS" in (doctor._ray().mend or "")
    for word in ("auto", "local"):  # Ray's own
        monkeypatch.setenv("RAY_ADDRESS", word)
        assert doctor._ray() == Finding("Ray", f"RAY_ADDRESS is {word}")
