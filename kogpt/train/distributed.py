"""The ranks: start, collectives, time-outs, end. In: the launcher's environment. Out: `Ranks`.

Works under `deepspeed`, `torchrun`, `srun`, `mpirun` (kogpt.train.launchers), and plain `python` (one rank). Four
defaults are changed:
- DeepSpeed would compile `deepspeed_shm_comm` at the first start. This takes half a minute, fails without a compiler,
  and serves a collective that training never calls. It is switched off, with the probe of all operations before it.
- The `deepspeed` command does not set OMP_NUM_THREADS, so every rank would use all cores. `share_cores` divides them.
- Ranks end with `leave`. Otherwise gloo sometimes crashes at exit after a successful training.
- DeepSpeed's process groups wait 30 minutes for a rank that hangs. `set_timeouts` limits all of them to 40 s.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kogpt.common import system
from kogpt.common.cores import usable_cores
from kogpt.common.device import choose_device, has_bf16, has_fp16
from kogpt.common.errors import UserError
from kogpt.common.nvidia import unusable_gpus
from kogpt.train import launchers, plain

T = TypeVar("T")

STALL_SECONDS = 40.0
"""Time-out of a collective. A rank whose collective waits longer ends; with shutdown, this takes under a minute."""
PATIENT_SECONDS = 3600.0
"""The time-out while the others wait for something slow on one rank, such as a disk or an upload."""

WAIT_SECONDS, JOIN_SECONDS = 20.0, 300.0
"""At the start: when a rank reports that it waits for the others, and when it gives up."""

_SINGLE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, the number of ranks, and its device."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which prints and records."""
        return self.rank == 0


def prepare_environment() -> None:
    """Set the environment variables that must be set before the ranks connect.

    Raises `UserError` if the environment is contradictory.
    """
    os.environ.update(launchers.rank_variables(os.environ))
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(free.getsockname()[1])
        os.environ.update(_SINGLE)
    choose_accelerator()


def choose_accelerator() -> None:
    """Without a GPU, tell DeepSpeed to use the CPU, so that its import does not warn that it found no GPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


_silent = False  # whether `_local_rank` has changed LOCAL_RANK to 0


def speaker() -> str | None:
    """The prefix of this rank's error messages, or None if it must not print any.

    The first rank of each node prints, because a fault may be visible on its node only. The answer comes from the
    environment, so that it is known before the ranks connect.
    """
    if _silent or os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    return "train.py: " if os.environ.get("RANK", "0") == "0" else f"train.py on {socket.gethostname()}: "


def all_have_bf16(ranks: Ranks) -> bool:
    """Whether every rank has bf16, because all must train in the same precision."""
    return not any(reduce_max(ranks, not has_bf16(ranks.device)))


def all_have_fp16(ranks: Ranks) -> bool:
    """Whether every rank can train in fp16."""
    return not any(reduce_max(ranks, not has_fp16(ranks.device)))


def local_world_size() -> int:
    """The number of ranks on this node. torchrun and the `deepspeed` command use different variables for it."""
    value = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or os.environ["WORLD_SIZE"]
    return int(value)


def share_cores(ranks_on_node: int) -> int:
    """Use this rank's share of the node's cores, unless OMP_NUM_THREADS is set. Returns the number of threads."""
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, usable_cores() // ranks_on_node)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def start() -> Ranks:
    """Join the process group (nccl on GPUs, gloo elsewhere). Call `prepare_environment` first.

    Without DeepSpeed there is one rank. Raises `UserError` if there are GPUs that torch cannot use, instead of training
    slowly on the CPU.
    """
    local_rank = _local_rank()
    if problem := unusable_gpus(local_rank):
        raise UserError(f"{problem}; or set CUDA_VISIBLE_DEVICES= to train on the CPU.")
    if not system.has_deepspeed():
        return _alone()
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    ranks_on_node = local_world_size()
    share_cores(ranks_on_node)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        device, backend = torch.device("cuda", local_rank), "nccl"
    else:
        device, backend = torch.device("cpu"), "gloo"
    # DeepSpeed would try to compile every operation, and print what fails. It only looks for `deepspeed_shm_comm` here.
    deepspeed.ops.__compatible_ops__ = {}
    _join(backend)
    return Ranks(dist.get_rank(), dist.get_world_size(), local_rank, ranks_on_node, device)


def _local_rank() -> int:
    """The number of this rank on its node, and of its GPU. Raises `UserError` if it has none.

    SLURM's --gpus-per-task and --gpu-bind show each rank its own GPU, which is then number 0 for everybody. DeepSpeed
    takes the number of the GPU from LOCAL_RANK, so that becomes 0 as well.
    """
    global _silent
    number = int(os.environ["LOCAL_RANK"])
    if not torch.cuda.is_available() or number < (count := torch.cuda.device_count()):
        return number
    if count > 1:
        raise UserError(
            f"LOCAL_RANK is {number}, but this rank sees {count} GPUs; start one rank for each GPU of the node, "
            "or show each rank one GPU (srun --gpus-per-task=1)."
        )
    _silent = True
    os.environ["LOCAL_RANK"] = "0"
    return 0


def _alone() -> Ranks:
    """One rank on the best device, which connects to nobody."""
    plain.refuse_several(os.environ["WORLD_SIZE"])
    share_cores(1)
    # torch has no HashStore on Windows.
    store = dist.HashStore() if hasattr(dist, "HashStore") else dist.FileStore(str(Path(mkdtemp(), "store")), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    return Ranks(0, 1, 0, 1, choose_device(None))


def _join(backend: str) -> None:
    """Connect to the other ranks. Python cannot interrupt the wait, so SIGINT and SIGTERM get their default action."""
    import deepspeed

    numbers = (signal.SIGTERM, signal.SIGINT)
    kept = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    place = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT')}"
    rank, world_size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    line = f"train.py: rank {rank} waits at {place} for all {world_size} ranks (from RANK and WORLD_SIZE)."
    notice = threading.Timer(WAIT_SECONDS, print, [line], {"file": sys.stderr, "flush": True})
    notice.daemon = True
    notice.start()
    try:
        # Joining may take long on a busy or large cluster. `set_timeouts` sets the time-out for training later.
        deepspeed.init_distributed(
            dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=timedelta(seconds=JOIN_SECONDS)
        )
    except (RuntimeError, ValueError, OSError) as error:
        if "EADDRINUSE" in str(error) or "address already in use" in str(error):
            raise UserError(
                f"port {os.environ['MASTER_PORT']} is taken, perhaps by another training on this machine; "
                "give a free one: deepspeed --master_port N, torchrun --master_port N, or MASTER_PORT=N."
            ) from None
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"rank {rank} could not connect to all {world_size} ranks at {place} ({reason}); start all of them, or "
            "unset RANK and WORLD_SIZE to train in one process."
        ) from None
    finally:
        notice.cancel()
        for number, handler in zip(numbers, kept, strict=True):
            signal.signal(number, handler)


_timeout = PATIENT_SECONDS


def set_timeouts(seconds: float | None = None) -> None:
    """Set the time-out of every existing process group, by default to `STALL_SECONDS`."""
    global _timeout
    _timeout = STALL_SECONDS if seconds is None else seconds
    c10d: Any = dist.distributed_c10d
    for group in list(c10d._world.pg_map):
        c10d._set_pg_timeout(timedelta(seconds=_timeout), group)


@contextmanager
def patient(ranks: Ranks) -> Iterator[None]:
    """A block in which a rank may take long. All ranks must enter it, and the others do not time out.

    All leave it together. Otherwise the first to leave would wait for the others with the short time-out.
    """
    before = _timeout
    set_timeouts(PATIENT_SECONDS)
    yield
    barrier(ranks)
    set_timeouts(before)


def barrier(ranks: Ranks) -> None:
    """Wait for all ranks."""
    if ranks.world_size > 1:
        dist.barrier(device_ids=[ranks.local_rank] if ranks.device.type == "cuda" else None)


def finish(ranks: Ranks) -> None:
    """Wait for all ranks and leave the process group, because the launcher kills the others when one rank fails.

    Rank 0 may still be uploading to W&B, so the time-out is long.
    """
    with patient(ranks):
        pass
    dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process without the interpreter's teardown.

    DeepSpeed keeps references to its process groups, so gloo's threads outlive `destroy_process_group`. If one of them
    asks for the GIL during teardown, the process aborts: exit status -6 after a successful training.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def reduce_sum(ranks: Ranks, *values: Tensor | float, beside: Tensor | float | None = None) -> list[float]:
    """The sums over all ranks, in float64 (exact for counts). Costs one collective and one wait for the device.

    `beside` is the same on all ranks. It is not summed, only fetched, and returned as the last number.
    """
    numbers = _on_device(ranks, values)
    if ranks.world_size > 1:
        dist.all_reduce(numbers)
    return (numbers if beside is None else torch.cat([numbers, _on_device(ranks, [beside])])).tolist()


def reduce_max(ranks: Ranks, *values: float) -> list[float]:
    """The maxima over all ranks, in one collective."""
    numbers = _on_device(ranks, values)
    if ranks.world_size > 1:
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers.tolist()


def _on_device(ranks: Ranks, values: Sequence[Tensor | float]) -> Tensor:
    """The values as one float64 tensor on the device, without waiting for values that are still being computed."""
    there = {i: value for i, value in enumerate(values) if isinstance(value, Tensor)}
    numbers = torch.tensor([0.0 if i in there else value for i, value in enumerate(values)], dtype=torch.float64)
    if ranks.device.type == "cuda":
        numbers = numbers.pin_memory().to(ranks.device, non_blocking=True)
    for index, value in there.items():
        has_float64 = value.device.type != "mps"
        numbers[index].copy_(value if has_float64 else value.cpu(), non_blocking=True)
    return numbers


def on_first(ranks: Ranks, call: Callable[[], T]) -> T | None:
    """Call `call` on rank 0. Returns its result there and None elsewhere; a `UserError` is raised on all ranks."""
    result, problem = None, None
    if ranks.first:
        try:
            result = call()
        except UserError as error:
            problem = str(error)
    if problem := broadcast_object(problem):
        raise UserError(problem)
    return result


def broadcast(value: Tensor) -> Tensor:
    """Overwrite `value` on all ranks with that of rank 0."""
    if dist.get_world_size() > 1:
        dist.broadcast(value, src=0)
    return value


def broadcast_object(value: Any) -> Any:
    """Send rank 0's object, which must be picklable, to all ranks."""
    box = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]
