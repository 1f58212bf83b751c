"""Save checkpoints in the background. In: each rank's part of the state. Out: step folders, and their outcomes.

Each rank copies its part to host memory and continues training. A thread hashes the copy, writes it, and waits for the
disk. The threads report to rank 0's thread through the process group's key-value store, so no collective waits for a
disk. When all ranks have written, rank 0 publishes the checkpoint, updates `best`, and prunes old ones. If a rank
reports an error, such as a full disk, the unfinished checkpoint is removed.

In three cases training waits, with a long time-out for the collectives:
- The previous checkpoint is still being written.
- A rank has no host memory for the copy.
- The nodes share no folder. Then rank 0 receives the parts of all ranks, one shard at a time, and writes them.

Cost: host memory for this rank's part until it is written (AdamW: 12 bytes per parameter, divided by the ranks). With
a GPU it is up to twice as much, because torch rounds each pinned block up to a power of two.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from kogpt.checkpoint.layout import MODEL, point, step_folder, temporary_folder
from kogpt.checkpoint.prune import prune
from kogpt.checkpoint.shards import Shard
from kogpt.checkpoint.writer import Files, discard, publish, write_shards
from kogpt.common.host_memory import host_memory
from kogpt.train.distributed import Ranks, barrier, patient, reduce_max

log = logging.getLogger(__name__)

ROOM = 0.8
"""The share of a node's free host memory that the copies of its ranks may take."""
_POLL_SECONDS = 0.05

Part = tuple[Shard, Callable[[], Tensor]]


@dataclass(frozen=True)
class Order:
    """A checkpoint to be written: its JSON, and whether it is the best so far.

    `before` is called before it is published, to sync files that must not be older than the checkpoint.
    """

    step: int
    config: dict[str, Any]
    state: dict[str, Any]
    better: bool
    keep: int
    before: Callable[[], None] | None


class Outcome(NamedTuple):
    """The result of an order. `error` is None if the checkpoint was saved. Known on rank 0 only."""

    order: Order
    folder: Path
    error: str | None


@dataclass
class Saver:
    """Saves the checkpoints of one training to `run`. `token` makes the names of its temporary folders unique.

    All ranks must call `await_last`, `start`, and `wait`.
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
        """Whether this rank's thread is still writing, or on rank 0 waiting for the other ranks."""
        return self._thread is not None and self._thread.is_alive()

    def await_last(self) -> None:
        """Call this before a new checkpoint: if any rank is still writing the previous one, warn and wait."""
        if reduce_max(self.ranks, self.is_busy)[0]:
            log.warning(
                "The previous checkpoint is still being written, and training waits for it; "
                "a faster disk or a larger --save-every avoids this."
            )
            self.wait()

    def start(self, order: Order, parts: list[Part]) -> None:
        """Begin to save this rank's `parts`. They may change as soon as this returns."""
        if not self.shared:
            self._gather(order, parts)
            return
        need = sum(copy_bytes(shard.numel, torch.cuda.is_available()) for shard, _ in parts)
        free = host_memory().free // self.ranks.local_world_size
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
        """Wait until the checkpoint that was started is on disk or has failed."""
        with patient(self.ranks):
            thread = self._thread
            if thread is not None and not self.ranks.first:
                thread.join()
            barrier(self.ranks)  # rank 0 waits here and not in join, because here it notices a rank that dies
            if thread is not None and self.ranks.first:
                thread.join()

    def outcomes(self) -> list[Outcome]:
        """The outcomes since the last call, on rank 0."""
        done, self._outcomes = self._outcomes, []
        return done

    def _begin(self, order: Order, parts: list[Part]) -> None:
        self._thread = threading.Thread(target=self._save, args=(order, parts), name="checkpoint", daemon=True)
        self._thread.start()

    def _save(self, order: Order, parts: list[Part]) -> None:
        """Run in the thread: write this rank's files and report them; rank 0 then completes the checkpoint."""
        temporary = temporary_folder(self.run, order.step, self.token)
        ranks = self.ranks
        if ranks.device.type == "cuda":
            torch.cuda.set_device(ranks.device)  # is set per thread
        report = _attempt(lambda: self._write(temporary, parts))
        if ranks.device.type == "cuda":
            torch._C._host_emptyCache()  # torch would keep the pinned memory of the copies
        if not ranks.first:
            _store().set(self._key(order, ranks.rank), json.dumps(report))
            return
        reports = [report, *(self._await(self._key(order, rank)) for rank in range(1, ranks.world_size))]
        self._conclude(order, temporary, reports)

    def _write(self, temporary: Path, parts: list[Part]) -> Files:
        get = dict(parts)
        parts.clear()  # so that each copy is freed once it is written
        return write_shards(
            temporary, self.ranks.rank, self.ranks.world_size, list(get), lambda shard: get.pop(shard)()
        )

    def _conclude(self, order: Order, temporary: Path, reports: list[dict[str, Any]]) -> None:
        """On rank 0, when all ranks have reported: publish or discard the checkpoint."""
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
            log.warning(f"Cannot clean up {self.run / 'checkpoints'}: {error}.")
        return files

    def _key(self, order: Order, rank: int) -> str:
        return f"kogpt-checkpoint/{self.token}/{order.step}/{rank}"

    def _await(self, key: str) -> dict[str, Any]:
        """Wait for a rank's report. If the rank dies, the training ends, and with it this daemon thread."""
        while not _store().check([key]):
            time.sleep(_POLL_SECONDS)
        report = json.loads(_store().get(key))
        _store().delete_key(key)
        return report

    def _gather(self, order: Order, parts: list[Part]) -> None:
        """Without a shared folder: rank 0 receives all parts, one shard at a time, and writes every rank's files."""
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
        """Write one rank's files as its parts arrive. After a disk error the remaining parts are still received."""
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
    """Copies of the parts in host memory. With a GPU the memory is pinned, which makes the copy as fast as the bus."""
    pinned = torch.cuda.is_available()
    copies: list[Part] = []
    for shard, part in parts:
        copy = torch.empty(shard.numel, dtype=torch.float32, pin_memory=pinned)
        copy.copy_(part(), non_blocking=pinned)
        copies.append((shard, lambda copy=copy: copy))  # type: ignore[misc]
    if pinned:
        torch.cuda.synchronize()
    return copies


def copy_bytes(numel: int, pinned: bool) -> int:
    """What a copy of so many fp32 numbers takes. torch rounds pinned blocks up to a power of two."""
    return 1 << (4 * numel - 1).bit_length() if pinned else 4 * numel


def _in_file_order(parts: list[Any]) -> list[Any]:
    """Weights first: the order in which `write_shards` reads them."""
    return sorted(parts, key=lambda part: part[0].kind != MODEL)


def _attempt(write: Callable[[], Files]) -> dict[str, Any]:
    """A report, {"files"} or {"error"}. Every error in the thread must reach rank 0 and the user."""
    try:
        return {"files": write()}
    except OSError as error:
        return {"error": str(error)}
    except Exception as error:
        log.exception("A checkpoint could not be written.")
        return {"error": repr(error)}


def _store() -> dist.Store:
    """The key-value store of the process group."""
    return dist.distributed_c10d._get_default_store()
