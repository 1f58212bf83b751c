"""`kogpt doctor` on this machine, and on machines where something is missing."""

import re
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from kogpt import doctor
from kogpt.common import system
from kogpt.doctor import Finding, examine


def test_every_line_says_ok_or_the_mend(tmp_path: Path) -> None:
    lines = [str(finding) for finding in examine(tmp_path)]
    assert all(re.match(r"(OK |FIX)  [^:]+: .+", line) for line in lines)
    subjects = [line[5:].split(":")[0] for line in lines]
    for subject in ("Python", "torch", "CPU cores", "memory", "disk", "Kkma", "Weights & Biases"):
        assert subject in subjects
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
