"""What breaks inside a rank of a test's training, on purpose. In: a trainer, and the orders of a `Plan`."""

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainings import wait_until


def sabotage(trainer: Any, orders: dict[str, Any], patch: Any) -> None:
    """Break something inside this rank: the weights, the disk, its memory, a signal at a bad moment.

    Or look on: `note_windows` names a folder for the ids of each step. `patch` undoes it all.
    """
    import torch

    from kogpt.train import checkpoints, distributed, engine, restorer, saver

    mine = trainer.ranks.rank == orders.get("rank", 0)
    if orders.get("masked_targets"):
        from masked import MaskedBatches

        batches = trainer.batches
        trainer.batches = MaskedBatches(
            [(trainer.corpora.main, 1.0)], max_seq_len=batches.max_seq_len, seed=1, share=batches.share
        )
    whole_loss = engine.TrainingEngine.loss

    def loss(self: Any, batch: Any) -> torch.Tensor:
        if mine and trainer.step == 0:
            time.sleep(orders.pop("slow_first_step", 0.0))
        value = whole_loss(self, batch)
        if "note_windows" in orders:
            path = Path(orders["note_windows"]) / f"step-{trainer.step + 1}-rank-{trainer.ranks.rank}"
            with open(path, "ab") as file:
                file.writelines(row.numpy().tobytes() for row in batch.ids)
        return value * float("nan") if mine and trainer.step + 1 in orders.get("nan", []) else value

    patch.setattr(engine.TrainingEngine, "loss", loss)
    whole_nll = engine.TrainingEngine.token_nll

    def token_nll(self: Any, batch: Any) -> torch.Tensor:
        if mine and orders.get("signal_in_evaluation"):
            os.kill(os.getpid(), orders["signal_in_evaluation"])
        return whole_nll(self, batch)

    patch.setattr(engine.TrainingEngine, "token_nll", token_nll)
    if mine:
        _break_disk(orders, patch)
    if "slow_state" in orders:
        _slow_down_state(orders["slow_state"], patch)
    if "stall_seconds" in orders:
        patch.setattr(distributed, "STALL_SECONDS", orders["stall_seconds"])
        patch.setattr("kogpt.tracking.tracker.draw_curves", lambda *rest: None)  # starting matplotlib takes seconds
    if "no_room" in orders:
        patch.setattr(saver, "ROOM", 0.0)
    if orders.get("unshared"):
        patch.setattr(checkpoints, "is_shared", lambda *rest: False)
        patch.setattr(restorer, "sees", lambda folder: trainer.ranks.first)


def _break_disk(orders: dict[str, Any], patch: Any) -> None:
    """A disk that is full at a step's checkpoint, or slow to write or read, or a rank that dies while writing."""
    import torch

    from kogpt.checkpoint.reader import CheckpointReader
    from kogpt.checkpoint.writer import ShardFile

    whole_open, whole_append, whole_close = CheckpointReader.__init__, ShardFile.append, ShardFile.close
    written = 0

    @contextmanager
    def full(path: Path) -> Iterator[None]:
        """At the given steps, the kernel refuses to write more than 50,000 bytes to a file."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if any(f".step-{step:08d}." in str(path) for step in orders.get("full_disk", [])):
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def append(self: Any, value: torch.Tensor) -> None:
        nonlocal written
        if f".step-{orders.get('die_in_save', -1):08d}." in str(self.path):
            written += 1
            if written == 7:
                os.kill(os.getpid(), signal.SIGKILL)
        with full(self.path):
            whole_append(self, value)

    def close(self: Any) -> Any:
        time.sleep(orders.get("slow_write", 0.0) / 2)  # of two files
        if "hold_write" in orders:
            wait_until(Path(orders["hold_write"]).exists, 200, "the test lets the file be written")
        with full(self.path):
            return whole_close(self)

    def open_(self: Any, *rest: Any) -> None:
        time.sleep(orders.get("slow_read", 0.0))
        whole_open(self, *rest)

    patch.setattr(ShardFile, "append", append)
    patch.setattr(ShardFile, "close", close)
    patch.setattr(CheckpointReader, "__init__", open_)


def _slow_down_state(seconds: float, patch: Any) -> None:
    """Rank 0's disk takes so long for run.json, whenever that is not written for the first time."""
    from kogpt.tracking import run_file

    whole = run_file.atomic_write

    @contextmanager
    def slow(path: Path) -> Iterator[Any]:
        time.sleep(seconds if path.exists() else 0.0)
        with whole(path) as file:
            yield file

    patch.setattr(run_file, "atomic_write", slow)
