"""The ranks: how they start, agree, notice a death and end. In: the launcher's environment. Out: `Ranks`.

Works under `deepspeed`, `torchrun`, `srun`, `mpirun` (kogpt.train.launchers) and plain `python` (one rank). What one
has to know about the parts:
- DeepSpeed compiles `deepspeed_shm_comm` at the first init (half a minute, fatal without a compiler) for a
  collective that training never calls: it is switched off.
- The `deepspeed` command sets no OMP_NUM_THREADS: ranks would fight for cores, so the cores are shared out.
- Ranks end by `leave`, or gloo now and then makes a crash of a success.
- Groups that DeepSpeed makes wait 30 minutes for a rank that hangs: `set_timeouts` gives all of them 40 s.
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
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kogpt.common.errors import UserError
from kogpt.common.nvidia import unusable_gpus
from kogpt.train import launchers

T = TypeVar("T")

STALL_SECONDS = 40.0
"""A collective that waits longer ends the rank: with start and tear-down under a minute."""
PATIENT_SECONDS = 3600.0
"""The same where one rank may need long for what the others wait for: a disk, an upload."""

WAIT_SECONDS, JOIN_SECONDS = 20.0, 300.0
"""At the start: when a rank says that it waits for others, and when it gives up."""

_SINGLE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}


@dataclass(frozen=True)
class Ranks:
    """This process among all of them."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Rank 0 talks and writes."""
        return self.rank == 0


def prepare_environment() -> None:
    """What must be set before the ranks meet: this one among all of them.

    Raises `UserError` where the environment contradicts itself.
    """
    os.environ.update(launchers.rank_variables(os.environ))
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(free.getsockname()[1])
        os.environ.update(_SINGLE)
    choose_accelerator()


def choose_accelerator() -> None:
    """Say where there is no GPU, before DeepSpeed is imported, which would warn that it found none."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def speaker() -> str | None:
    """How this rank's complaints begin: the first one of each node speaks, which may be the only one to see a fault.

    By the environment, so that it is known before the ranks have met.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    return "train.py: " if os.environ.get("RANK", "0") == "0" else f"train.py on {socket.gethostname()}: "


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16. Without it torch still does, on a CPU many times slower than in fp32."""
    if device.type == "cpu":
        offered = torch.cpu.get_capabilities()
        return any(offered.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last one: ARM
    return torch.cuda.is_bf16_supported(including_emulation=False)


def all_have_bf16(ranks: Ranks) -> bool:
    """`has_bf16` of every rank: all must train in the same precision."""
    return not any(reduce_max(ranks, not has_bf16(ranks.device)))


def local_world_size() -> int:
    """Ranks on this node: torchrun and the `deepspeed` command name the number differently."""
    value = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or os.environ["WORLD_SIZE"]
    return int(value)


def share_cores(ranks_on_node: int) -> int:
    """Give this rank its share of the node's cores unless OMP_NUM_THREADS says otherwise; the number given."""
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, len(os.sched_getaffinity(0)) // ranks_on_node)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def start() -> Ranks:
    """Join the process group (nccl on GPUs, gloo elsewhere); call `prepare_environment` first.

    `UserError` where there are GPUs that torch cannot use: nobody wants to find that out after a night on the CPU.
    """
    import deepspeed

    if problem := unusable_gpus():
        raise UserError(f"{problem}; or set CUDA_VISIBLE_DEVICES= to train on the CPU.")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    ranks_on_node = local_world_size()
    share_cores(ranks_on_node)
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        device, backend = torch.device("cuda", local_rank), "nccl"
    else:
        device, backend = torch.device("cpu"), "gloo"
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    _join(backend)
    return Ranks(dist.get_rank(), dist.get_world_size(), local_rank, ranks_on_node, device)


def _join(backend: str) -> None:
    """Meet the other ranks. The waiting cannot be interrupted from Python, so that signals do what the kernel does."""
    import deepspeed

    numbers = (signal.SIGTERM, signal.SIGINT)
    kept = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    place = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT')}"
    rank, world_size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    line = f"train.py: rank {rank} waits at {place} for all {world_size} ranks (RANK and WORLD_SIZE say so)."
    notice = threading.Timer(WAIT_SECONDS, print, [line], {"file": sys.stderr, "flush": True})
    notice.daemon = True
    notice.start()
    try:
        # Joining may take long on a busy or large cluster; `set_timeouts` is for afterwards.
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
            f"rank {rank} did not meet all {world_size} ranks at {place} ({reason}); start all of them, or unset "
            "RANK and WORLD_SIZE where one process is to train alone."
        ) from None
    finally:
        notice.cancel()
        for number, handler in zip(numbers, kept, strict=True):
            signal.signal(number, handler)


_timeout = PATIENT_SECONDS


def set_timeouts(seconds: float | None = None) -> None:
    """No collective, of any group that exists by now, waits longer (`STALL_SECONDS`) for a dead or stuck rank."""
    global _timeout
    _timeout = STALL_SECONDS if seconds is None else seconds
    c10d: Any = dist.distributed_c10d
    for group in list(c10d._world.pg_map):
        c10d._set_pg_timeout(timedelta(seconds=_timeout), group)


@contextmanager
def patient(ranks: Ranks) -> Iterator[None]:
    """For what may take one rank long: all ranks go in and come out together, and none gives up on another.

    They come out together because one that was first would wait for the others under the short time-out again.
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
    """Leave together: the launcher stops everybody as soon as one rank has ended with an error code.

    Rank 0 may still have to upload to W&B, for longer than a step of training could take.
    """
    with patient(ranks):
        pass
    dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process without the interpreter's teardown.

    DeepSpeed keeps references to its process groups, so that gloo's threads outlive `destroy_process_group`; one that
    asks for the GIL when Python has given it up aborts the process: exit -6 behind a training that had finished.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def reduce_sum(ranks: Ranks, *values: Tensor | float, beside: Tensor | float | None = None) -> list[float]:
    """The sums over all ranks, in float64 (exact for counts): one collective, one wait for the device.

    `beside`, which is the same on all ranks, comes along as the last number.
    """
    numbers = _on_device(ranks, values)
    if ranks.world_size > 1:
        dist.all_reduce(numbers)
    return (numbers if beside is None else torch.cat([numbers, _on_device(ranks, [beside])])).tolist()


def reduce_max(ranks: Ranks, *values: float) -> list[float]:
    """The maxima over all ranks, one collective."""
    numbers = _on_device(ranks, values)
    if ranks.world_size > 1:
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers.tolist()


def _on_device(ranks: Ranks, values: Sequence[Tensor | float]) -> Tensor:
    """The values as one float64 tensor, without waiting for those that the device has yet to compute."""
    there = {i: value for i, value in enumerate(values) if isinstance(value, Tensor)}
    numbers = torch.tensor([0.0 if i in there else value for i, value in enumerate(values)], dtype=torch.float64)
    if ranks.device.type == "cuda":
        numbers = numbers.pin_memory().to(ranks.device, non_blocking=True)
    for index, value in there.items():
        numbers[index].copy_(value, non_blocking=True)
    return numbers


def on_first(ranks: Ranks, call: Callable[[], T]) -> T | None:
    """What `call` returns on rank 0, None on the others; its `UserError` on all of them."""
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
    """Overwrite `value` with rank 0's on all ranks."""
    if dist.get_world_size() > 1:
        dist.broadcast(value, src=0)
    return value


def broadcast_object(value: Any) -> Any:
    """Rank 0's picklable object on all ranks."""
    box = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]
