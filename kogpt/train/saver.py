"""Save checkpoints in the background. In: each rank's part of the state. Out: step folders, and their outcomes.

Each rank copies its part to host memory and goes on; a thread of its own hashes it, writes it and waits for the disk.
Ranks tell rank 0's thread through the process group's key-value store what they have written: no collective waits for
a disk. When all have, rank 0 publishes the checkpoint, points `best` to it and prunes. A rank whose disk is full says
so instead, and nothing is left of that checkpoint.

Three things happen in the foreground, with all ranks waiting under a long time-out and a line that says why: a save
that begins before the last one is through; a rank without room for the copy; nodes without a shared folder, where rank
0 receives the others' parts, one shard at a time, and writes them.

Cost: while it is being written, as much host memory as this rank's part (AdamW: 12 bytes per parameter / ranks).
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from kogpt.checkpoint.layout import MODEL, point, step_folder, temporary_folder
from kogpt.checkpoint.prune import prune
from kogpt.checkpoint.shards import Shard
from kogpt.checkpoint.writer import Files, discard, publish, write_shards
from kogpt.train.distributed import Ranks, barrier, patient, reduce_max

log = logging.getLogger(__name__)

ROOM = 0.8
"""Share of the free host memory that the copies of all ranks of a node may take."""
_POLL_SECONDS = 0.05

Part = tuple[Shard, Callable[[], Tensor]]


@dataclass(frozen=True)
class Order:
    """A checkpoint to be made: its JSON, whether it is the best so far, and what must be on disk before it counts."""

    step: int
    config: dict[str, Any]
    state: dict[str, Any]
    better: bool
    keep: int
    before: Callable[[], None] | None


class Outcome(NamedTuple):
    """What became of an order; `error` is None where its folder is there. Known to rank 0."""

    order: Order
    folder: Path
    error: str | None


@dataclass
class Saver:
    """Makes the checkpoints of one training in `run`; `token` is the training's own word for its temporary folders.

    All ranks call `await_last`, `start` and `wait` together.
    """

    run: Path
    ranks: Ranks
    token: str
    shared: bool
    """Whether all ranks see `run` as the same folder."""
    _thread: threading.Thread | None = None
    _outcomes: list[Outcome] = field(default_factory=list)

    @property
    def is_busy(self) -> bool:
        """Whether this rank is still writing (on rank 0: or waiting for another's files)."""
        return self._thread is not None and self._thread.is_alive()

    def await_last(self) -> None:
        """Before a new checkpoint: wait for the one that is still being written on any rank, and say so."""
        if reduce_max(self.ranks, self.is_busy)[0]:
            log.warning(
                "The previous checkpoint is still being written, and training waits for it; "
                "a faster disk or a larger --save-every avoids this."
            )
            self.wait()

    def start(self, order: Order, parts: list[Part]) -> None:
        """Begin to save; `parts` of this rank may change as soon as this returns."""
        if not self.shared:
            self._gather(order, parts)
            return
        need = sum(4 * shard.numel for shard, _ in parts)
        free = psutil.virtual_memory().available // self.ranks.local_world_size
        if reduce_max(self.ranks, need > ROOM * free)[0]:
            log.warning(
                f"Step {order.step}: a rank has no host memory free for a copy of its {need / 2**30:.1f} GiB, "
                "so training waits while the checkpoint is written."
            )
            self._begin(order, parts)
            self.wait()
        else:
            self._begin(order, copied(parts))

    def wait(self) -> None:
        """Until what has been started is on disk, or given up; all ranks together."""
        with patient(self.ranks):
            thread = self._thread
            if thread is not None and not self.ranks.first:
                thread.join()
            barrier(self.ranks)  # rank 0 waits here, where it notices a rank that dies
            if thread is not None and self.ranks.first:
                thread.join()

    def outcomes(self) -> list[Outcome]:
        """What has ended since the last call; on rank 0."""
        done, self._outcomes = self._outcomes, []
        return done

    def _begin(self, order: Order, parts: list[Part]) -> None:
        self._thread = threading.Thread(target=self._save, args=(order, parts), name="checkpoint", daemon=True)
        self._thread.start()

    def _save(self, order: Order, parts: list[Part]) -> None:
        """The thread's work: this rank's files, then the report, or, on rank 0, the rest."""
        temporary = temporary_folder(self.run, order.step, self.token)
        ranks = self.ranks
        if ranks.device.type == "cuda":
            torch.cuda.set_device(ranks.device)  # a setting of each thread
        report = _attempt(lambda: self._write(temporary, parts))
        if not ranks.first:
            _store().set(self._key(order, ranks.rank), json.dumps(report))
            return
        reports = [report, *(self._await(self._key(order, rank)) for rank in range(1, ranks.world_size))]
        self._conclude(order, temporary, reports)

    def _write(self, temporary: Path, parts: list[Part]) -> Files:
        get = dict(parts)
        parts.clear()  # so that each copy is freed when it is written
        return write_shards(
            temporary, self.ranks.rank, self.ranks.world_size, list(get), lambda shard: get.pop(shard)()
        )

    def _conclude(self, order: Order, temporary: Path, reports: list[dict[str, Any]]) -> None:
        """Rank 0, when all ranks have written or given up."""
        folder = step_folder(self.run, order.step)
        errors = [report["error"] for report in reports if "error" in report]
        if not errors:
            files = {name: entry for report in reports for name, entry in report["files"].items()}
            report = _attempt(lambda: self._publish(order, temporary, folder, files))
            errors = [report["error"]] if "error" in report else []
        if errors:
            discard(temporary)
        self._outcomes.append(Outcome(order, folder, errors[0] if errors else None))

    def _publish(self, order: Order, temporary: Path, folder: Path, files: Files) -> Files:
        if order.before is not None:
            order.before()
        publish(temporary, folder, files, order.config, order.state)
        try:
            if order.better:
                point(folder, "best")
            prune(self.run, order.keep)
        except OSError as error:
            log.warning("cannot clean up %s: %s.", self.run / "checkpoints", error)
        return files

    def _key(self, order: Order, rank: int) -> str:
        return f"kogpt-checkpoint/{self.token}/{order.step}/{rank}"

    def _await(self, key: str) -> dict[str, Any]:
        """A rank's report. One that dies before it has written ends the training, and this thread with it."""
        while not _store().check([key]):
            time.sleep(_POLL_SECONDS)
        report = json.loads(_store().get(key))
        _store().delete_key(key)
        return report

    def _gather(self, order: Order, parts: list[Part]) -> None:
        """Without a shared folder: rank 0 receives all parts, a shard at a time, and writes every rank's files."""
        with patient(self.ranks):
            tables: list[Any] = [None] * self.ranks.world_size
            dist.all_gather_object(tables, [shard for shard, _ in parts])
            if not self.ranks.first:
                for _, part in _in_file_order(parts):
                    dist.send(part().to(self.ranks.device, torch.float32), dst=0)
            else:
                temporary = temporary_folder(self.run, order.step, self.token)
                reports = [self._write_for(rank, table, temporary, parts) for rank, table in enumerate(tables)]
                self._conclude(order, temporary, reports)
            barrier(self.ranks)

    def _write_for(self, rank: int, table: list[Shard], temporary: Path, parts: list[Part]) -> dict[str, Any]:
        """Write one rank's files as its parts come in; what the disk refuses is received all the same."""
        own = dict(parts)
        left = [shard for shard, _ in _in_file_order([(shard, None) for shard in table])]

        def get(shard: Shard) -> Tensor:
            left.remove(shard)
            if rank == 0:
                return own[shard]()
            value = torch.empty(shard.numel, dtype=torch.float32, device=self.ranks.device)
            dist.recv(value, src=rank)
            return value

        report = _attempt(lambda: write_shards(temporary, rank, self.ranks.world_size, table, get))
        for shard in list(left):
            get(shard)
        return report


def copied(parts: list[Part]) -> list[Part]:
    """The parts in host memory of their own; page-locked behind a GPU, so that the copy takes the bus's whole width."""
    pinned = torch.cuda.is_available()
    copies: list[Part] = []
    for shard, part in parts:
        copy = torch.empty(shard.numel, dtype=torch.float32, pin_memory=pinned)
        copy.copy_(part(), non_blocking=True)
        copies.append((shard, lambda copy=copy: copy))  # type: ignore[misc]
    if pinned:
        torch.cuda.synchronize()
    return copies


def _in_file_order(parts: list[Any]) -> list[Any]:
    """Weights first, as `write_shards` asks for them."""
    return sorted(parts, key=lambda part: part[0].kind != MODEL)


def _attempt(write: Callable[[], Files]) -> dict[str, Any]:
    """{"files"}, or {"error"}: whatever goes wrong in the thread must reach rank 0, and the user."""
    try:
        return {"files": write()}
    except OSError as error:
        return {"error": str(error)}
    except Exception as error:
        log.exception("a checkpoint could not be written")
        return {"error": repr(error)}


def _store() -> dist.Store:
    """The key-value store through which the process group met."""
    return dist.distributed_c10d._get_default_store()
