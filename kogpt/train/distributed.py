"""The ranks: how they start, agree, notice a death and end. In: the launcher's environment. Out: `Ranks`.

Works under `deepspeed`, `torchrun` and plain `python` (one rank). What one has to know about the parts:
- DeepSpeed compiles `deepspeed_shm_comm` at the first init (half a minute, fatal without a compiler) for a
  collective that training never calls: it is switched off.
- The `deepspeed` command sets no OMP_NUM_THREADS: ranks would fight for cores, so the cores are shared out.
- A signal to the `deepspeed` process alone leaves its ranks training: `Stop` watches the launchers' pids.
- Ranks end by `leave`, or gloo now and then makes a crash of a success.
- Groups that DeepSpeed makes wait 30 minutes for a rank that hangs: `set_timeouts` gives all of them 40 s.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn, TypeVar

import psutil
import torch
import torch.distributed as dist

from kogpt.common.errors import UserError
from kogpt.common.nvidia import unusable_gpus

T = TypeVar("T")

STALL_SECONDS = 40.0
"""A collective that waits longer ends the rank: with start and tear-down under a minute."""
FAREWELL_SECONDS = 3600.0
"""The same at the end, where rank 0 may be uploading."""

_SINGLE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}


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
    """What must be set before torch or DeepSpeed look: one rank where no launcher spoke, and the CPU backend."""
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ.setdefault("MASTER_PORT", str(free.getsockname()[1]))
    for name, value in _SINGLE.items():
        os.environ.setdefault(name, value)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def is_first() -> bool:
    """Whether this is rank 0, by the environment (also before the ranks have met)."""
    return os.environ["RANK"] == "0"


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
    # Joining may take long on a busy or large cluster; `set_timeouts` is for afterwards.
    deepspeed.init_distributed(
        dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=timedelta(minutes=5)
    )
    return Ranks(dist.get_rank(), dist.get_world_size(), local_rank, ranks_on_node, device)


def set_timeouts(seconds: float = STALL_SECONDS) -> None:
    """No collective, of any group that exists by now, waits longer than this for a dead or stuck rank."""
    c10d: Any = dist.distributed_c10d
    for group in list(c10d._world.pg_map):
        c10d._set_pg_timeout(timedelta(seconds=seconds), group)


def finish(ranks: Ranks) -> None:
    """Leave together: the launcher stops everybody as soon as one rank has ended with an error code.

    Rank 0 may still have to upload to W&B, for longer than a step of training could take.
    """
    set_timeouts(FAREWELL_SECONDS)
    dist.barrier(device_ids=[ranks.local_rank] if ranks.device.type == "cuda" else None)
    dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process without the interpreter's teardown.

    DeepSpeed keeps references to its process groups, so that gloo's threads outlive `destroy_process_group`; one that
    asks for the GIL when Python has given it up aborts the process: exit -6 behind a training that had finished.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def reduce_sum(ranks: Ranks, *values: float) -> list[float]:
    """The sums over all ranks, in float64 (exact for counts), one collective."""
    numbers = torch.tensor(values, dtype=torch.float64, device=ranks.device)
    if ranks.world_size > 1:
        dist.all_reduce(numbers)
    return numbers.tolist()


def reduce_max(ranks: Ranks, *values: float) -> list[float]:
    """The maxima over all ranks, one collective."""
    numbers = torch.tensor(values, dtype=torch.float64, device=ranks.device)
    if ranks.world_size > 1:
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers.tolist()


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


def broadcast(value: torch.Tensor) -> torch.Tensor:
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


class Stop:
    """The wish to end, from a signal or a launcher that died; ranks agree on it through `reduce_max`.

    `code` is 0, or the exit status to end with: 130 after SIGINT, 143 after SIGTERM or a launcher's death.
    A second SIGINT ends the rank at once; a SIGTERM after it does not, since that is how launchers pass on a Ctrl-C.
    """

    def __init__(self) -> None:
        self.code = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, args=(_launchers(),), daemon=True).start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.code == 128 + signal.SIGINT:
            os._exit(self.code)
        self.code = self.code or 128 + number

    def _watch(self, launchers: list[psutil.Process]) -> None:
        pause = threading.Event()
        while all(map(_lives, launchers)):
            pause.wait(1.0)
        self.code = self.code or 128 + signal.SIGTERM


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _launchers() -> list[psutil.Process]:
    """The processes between this rank and the command the user typed: their death must not go unnoticed."""
    found = []
    for process in psutil.Process().parents():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            break
        if not any(name in line for name in ("deepspeed", "torchrun", "torch.distributed", "launch/supervise.py")):
            break
        if "python" not in line:
            break
        found.append(process)
    return found
