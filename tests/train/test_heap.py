"""A heap full of holes: a training returns them to the system, but not in every step."""

import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from engines import train_here
from torch import Tensor

from kogpt.train.heap import GROWTH, Heap
from kogpt.train.trainer import Trainer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps what is freed")

PIECE = 64 << 10
"""Too small for an array of the system's own, so that it is in the heap."""


def resident() -> int:
    return psutil.Process().memory_info().rss


def holes(size: int) -> list[Tensor]:
    """Free `size` bytes of the heap, with a piece in use behind every seven free ones. Keep the result."""
    return [torch.ones(PIECE, dtype=torch.uint8) for _ in range(size // PIECE * 8 // 7)][::8]


def test_the_heap_is_returned_when_it_has_grown_by_a_tenth() -> None:
    heap, size = Heap(), 128 << 20
    kept = holes(size)
    before = resident()
    for step in (2.0, 1.0, 1.0, GROWTH):
        heap.watch(step)
    assert resident() > before - size // 2
    heap.watch(GROWTH + 0.01)
    assert resident() < before - size // 2
    heap.watch(9.0)
    assert heap.least == 9.0, "what is needed after the return is not growth"
    assert len(kept) > 1


def test_a_training_returns_its_holes(
    corpus: Path, ranks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Trainer.log
    kept: list[list[Tensor]] = []
    sizes: list[int] = []

    def wasteful(trainer: Trainer, record: dict[str, Any]) -> None:
        log(trainer, record)
        if record["step"] == 3:
            size = resident() // 2
            kept.append(holes(size))
            sizes.extend((size, resident()))

    monkeypatch.setattr(Trainer, "log", wasteful)
    words = ["--corpus", str(corpus), "--out", str(tmp_path / "run"), "--depth", "1", "--max-seq-len", "32"]
    words += ["--steps", "5", "--stride", "16", "--prompts", "--compile", "off", "--wandb", "off"]
    train_here(words, ranks)
    assert resident() < sizes[1] - sizes[0] // 2
