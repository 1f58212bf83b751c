"""bench/gpu_check.py: nothing is left of a part that hangs, results are heard as they come, and figures are true.

The check itself runs in its toy form in CI. Here is what that cannot show: the end of a part, and made-up events and
rows of a GPU.
"""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch.autograd import DeviceType
from trainings import PROJECT, script, wait_until

CHILD = """
import os, pathlib, subprocess, sys, time
name, scratch, answer, toy = sys.argv[1:]
with open(answer, "a") as file:
    file.write('{"name": "first", "passed": true, "figure": "1"}\\n{"name": "no GPU", "passed": null, "figure": ""}\\n')
"""
HANGS = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(answer).with_name("pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/gpu_check.py with a part that answers in two lines."""
    module = script("gpu_check", "bench")
    (tmp_path / "gpu_parts.py").write_text(CHILD)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    return module


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    """The modules of its parts. They set the variables of a rank when they are imported."""
    with mock.patch.dict(os.environ), mock.patch.object(sys, "path", [str(PROJECT / "bench"), *sys.path]):
        yield SimpleNamespace(
            contestants=importlib.import_module("contestants"), gpu_figures=importlib.import_module("gpu_figures")
        )


@pytest.fixture(scope="module")
def gpu_profile() -> ModuleType:
    return script("gpu_profile", "bench")


def _gone(pid: str) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_part_that_hangs_is_killed_with_what_it_started(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "gpu_parts.py").write_text(CHILD + HANGS)
    coming = check._checks("paths", 10, True, tmp_path)
    assert next(coming)["name"] == "first"  # heard while the part runs
    wait_until((tmp_path / "pids").exists, 20, "the part starts a child")
    found = list(coming)
    assert [each["passed"] for each in found] == [None, False]
    assert found[-1]["figure"].startswith("no end within 10 s")
    for pid in (tmp_path / "pids").read_text().split():
        wait_until(lambda pid=pid: _gone(pid), 20, "it is killed")


def test_a_part_is_killed_if_nobody_listens_any_more(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "gpu_parts.py").write_text(CHILD + HANGS)
    coming = check._checks("paths", 600, True, tmp_path)
    next(coming)
    wait_until((tmp_path / "pids").exists, 20, "the part starts a child")
    coming.close()  # as an exception such as that of Ctrl-C does
    for pid in (tmp_path / "pids").read_text().split():
        wait_until(lambda pid=pid: _gone(pid), 20, "it is killed")


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ("", 0, "1 of 2 checks passed, 1 skipped\n"),
        ("sys.exit('no kernel image')", 1, "1 of 3 checks passed, 1 skipped, 1 failed:\n"),
    ],
)
def test_what_is_skipped_is_no_failure_and_is_not_counted_as_passed(
    check: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: str,
    code: int,
    said: str,
) -> None:
    (tmp_path / "gpu_parts.py").write_text(CHILD + more)
    out = tmp_path / "check.json"
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--toy", "--parts", "paths", "--json", str(out)])
    assert check.main() == code
    assert said in capsys.readouterr().out
    (part,) = json.loads(out.read_text())["parts"]
    assert [each["passed"] for each in part["checks"]][:2] == [True, None]
    assert ("no kernel image" in part.get("log", "")) == bool(code)


def _event(name: str, start: float, end: float, device: bool = False, annotation: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        device_type=DeviceType.CUDA if device else DeviceType.CPU,
        is_user_annotation=annotation,
    )


def test_of_a_profile_only_the_marked_steps_count(gpu_profile: ModuleType) -> None:
    mark = gpu_profile.MARK
    events = [
        _event("cudaLaunchKernel", 10, 11),  # of the step before
        _event("gemm", 20, 90, device=True),
        _event(mark, 100, 2100, annotation=True),
        _event(mark, 100, 2100, device=True, annotation=True),
        *(_event("cudaLaunchKernel", 100 + n, 101 + n) for n in range(4)),
        _event("cuLaunchKernelEx", 110, 111),
        _event("gemm", 200, 1200, device=True),
        _event("ncclAllReduce", 1000, 1700, device=True),  # on another stream: 200 of it beside the gemm
        _event("Memcpy DtoH", 1900, 2000, device=True),
        _event("within", 1950, 1960, device=True),
        _event("aten::_local_scalar_dense", 1000, 1900),
        _event("cudaStreamSynchronize", 1001, 1900),
        _event("cudaDeviceSynchronize", 2200, 2201),  # the profiler's own
    ]
    found = gpu_profile.read(events, 2)
    assert found == gpu_profile.StepProfile(seconds=0.001, busy=0.8, launches=2.5, waits=0.5, reads=0.5)


def test_a_profile_counts_the_reads_of_real_steps(gpu_profile: ModuleType) -> None:
    value = torch.ones(())
    found = gpu_profile.profiled(lambda count: [value.item() + value.item() for _ in range(count)], 3)
    assert found.reads == 2
    assert found.busy == found.waits == 0
    assert 0 < found.seconds < 10


def _row(name: str, tokens_per_s: float, **more: Any) -> dict[str, Any]:
    row = {"shape": "small:1024", "contestant": name, "tokens_per_s": tokens_per_s, "mfu": 0.44, "peak_gib": 9.0}
    return row | {"device": "NVIDIA H200"} | more


class _Heard:
    """A part on a GPU that keeps its results."""

    cuda = True

    def __init__(self) -> None:
        self.results: dict[str, tuple[bool | None, str]] = {}

    def check(self, name: str, passed: bool | None, figure: str) -> None:
        assert name not in self.results
        self.results[name] = passed, figure


def test_rows_are_judged_as_they_come(parts: SimpleNamespace) -> None:
    part, shape = _Heard(), "small:1024"

    def rows() -> Iterator[dict[str, Any]]:
        yield _row("plain loop", 500_000.0)
        yield _row("ours, ZeRO 0", 520_000.0)
        assert part.results[f"{shape}: ours against plain loop"] == (True, "1.04, goal 1.0")
        yield {"shape": shape, "contestant": "transformers", "error": "ModuleNotFoundError: no transformers"}
        yield {"shape": shape, "contestant": "ours, ZeRO 1", "error": "OutOfMemoryError: CUDA out of memory"}
        yield {"shape": shape, "contestant": "ours, ZeRO 2", "error": "RuntimeError: no kernel image"}
        yield _row("plain loop, again", 505_000.0)

    parts.gpu_figures.judge_rows(part, rows())
    passed = {
        name.removeprefix(f"{shape}, ").removeprefix(f"{shape}: "): each[0] for name, each in part.results.items()
    }
    assert passed == {
        "plain loop": True,
        "ours, ZeRO 0": True,
        "MFU": False,  # an H200 has the peak of an H100, of which 45 % are asked
        "ours against plain loop": True,
        "transformers": None,
        "ours, ZeRO 1": None,
        "ours, ZeRO 2": False,
        "plain loop, again": True,
    }


@pytest.mark.parametrize(("device", "mfu", "passed"), [("NVIDIA H100 80GB HBM3", 0.46, True), ("Tesla T4", 0.2, None)])
def test_the_goal_of_an_h100_is_for_gpus_like_it(
    parts: SimpleNamespace, device: str, mfu: float, passed: bool | None
) -> None:
    part = _Heard()
    parts.gpu_figures.judge_rows(part, iter([_row("ours, ZeRO 0", 1.0, device=device, mfu=mfu)]))
    assert part.results["small:1024: MFU"][0] is passed


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_one_rank_measures_a_stage_as_it_trains(parts: SimpleNamespace, stage: int) -> None:
    content = {
        "train_batch_size": 32,
        "train_micro_batch_size_per_gpu": 32,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": stage},
    }
    plan = parts.contestants.plan_of_one_rank(Path("ds.json"), content, torch.device("cpu"))
    assert (plan.stage, plan.precision, plan.clip) == (stage, "bf16" if stage else "autocast", 1.0)
    assert (plan.global_batch, plan.micro_batch, plan.grad_accum) == (32, 32, 1)
    assert plan.engine["train_batch_size"] == 32
    assert plan.engine["gradient_clipping"] == (1.0 if stage else 0.0)
    assert plan.engine["bf16"]["enabled"] == (stage > 0)
