"""Compiled blocks under a DeepSpeed engine, whose hooks must not be traced; and what a compiler needs."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.device_interface
import torch._inductor.config
from engines import SHAPE, SHAPES, plan_for, train_step

from kogpt.train import compile as compiling
from kogpt.train.activation_checkpointing import checkpoint_blocks
from kogpt.train.compile import compile_blocks, obstacle
from kogpt.train.engine import TrainingEngine


@pytest.fixture
def synchronised(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Make DeepSpeed's accelerator wait for the device as on CUDA. Returns a list of the calls, traced or not."""
    from deepspeed.accelerator import get_accelerator

    calls = []

    def synchronize(device_index: int | None = None) -> None:
        if torch.compiler.is_compiling():
            torch.cuda.synchronize(device_index)
        else:
            calls.append(True)

    monkeypatch.setattr(get_accelerator(), "synchronize", synchronize)
    return calls


def test_deepspeed_never_waits_for_the_device(ranks: Any, synchronised: list[bool]) -> None:
    engine = TrainingEngine(SHAPE, plan_for(), ranks, 1, None)
    for step in range(4):
        train_step(engine, step)
    assert not synchronised


@pytest.mark.parametrize(
    ("arch", "layers", "forgetful"), [("gpt2", 1, False), ("gpt2", 5, False), ("gpt2", 5, True), ("qwen3", 5, True)]
)
def test_one_graph_for_all_blocks_and_the_losses_of_eager(
    arch: str, layers: int, forgetful: bool, ranks: Any, synchronised: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from step 3 on, when DeepSpeed's timer would be traced into the graph and break it."""
    shape = replace(SHAPES[arch], n_layer=layers)
    losses = {}
    for compiled in (False, True):
        engine = TrainingEngine(shape, plan_for(), ranks, 1, None)
        if forgetful:
            checkpoint_blocks(engine.module)
        if compiled:
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
            # Only Dynamo's part, because compiling the graph is up to torch and takes a minute.
            monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
            compile_blocks(engine.module)
        losses[compiled] = [train_step(engine, step) for step in range(4)]
    assert losses[True] == losses[False]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize(
    ("programs", "header", "said"),
    [
        ({"gcc"}, True, None),
        ({"clang"}, True, None),
        ({"cc"}, True, "no C compiler"),  # Triton looks for gcc and clang
        (set(), True, "no C compiler"),
        ({"gcc"}, False, "Python.h is missing"),
    ],
)
def test_what_triton_needs_to_build(
    programs: set[str], header: bool, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("has_triton_package", "has_triton"):
        monkeypatch.setattr(torch.utils._triton, name, lambda: True)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(compiling.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    if header:
        (tmp_path / "Python.h").touch()
    reason = obstacle(0, "cuda")
    assert reason is None if said is None else said in str(reason)


class _Card:
    """A GPU, as far as torch asks before it uses Triton."""

    def __init__(self, major: int | None) -> None:
        self.major = major
        self.Worker = self

    def is_available(self) -> bool:
        return self.major is not None

    def get_device_properties(self) -> "_Card":
        return self


def _cards(major: int) -> Any:
    """A function from the type of a device to such GPUs; there is no other device."""
    return lambda kind: _Card(major if kind == "cuda" else None)


@pytest.mark.parametrize(
    ("major", "package", "said"),
    [(6, True, "compute capability 7"), (7, False, "Triton is not installed"), (7, True, "no C compiler")],
)
def test_triton_and_a_gpu_for_it(major: int, package: bool, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Pascal the first step would fail, and on Windows torch comes without Triton."""
    asked = torch.utils._triton
    monkeypatch.setattr(asked, "has_triton_package", lambda: package)
    monkeypatch.setattr(asked, "has_triton", asked.has_triton.__wrapped__)  # without what it found before
    monkeypatch.setattr(torch._dynamo.device_interface, "get_interface_for_device", _cards(major))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert said in str(obstacle(0, "cuda"))


def test_not_under_zero_3() -> None:
    assert "ZeRO stage 3" in str(obstacle(3, "cuda"))
