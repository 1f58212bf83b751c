"""The rank that a launcher gave this process. In: the environment. Out: torch's variables for it.

`deepspeed` and `torchrun` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, and MASTER_PORT themselves. `srun` (SLURM) and
`mpirun` (Open MPI) have their own variables. If those were ignored, each of N processes would train alone in the same
folder. All ranks of a job derive the same port. Variables that the user has set are kept.
"""

import re
import zlib
from collections.abc import Mapping

from kogpt.common.errors import UserError

FIRST_PORT, PORTS = 20_000, 10_000
"""Ports below the range that kernels use for outgoing connections."""


def rank_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to add; none if they are already set, or if there is only one process."""
    if "RANK" in environment:
        lacking = [name for name in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR") if name not in environment]
        if lacking and (environment["RANK"], environment.get("WORLD_SIZE", "1")) != ("0", "1"):
            raise UserError(
                f"RANK is {environment['RANK']}, but {', '.join(lacking)} is not set; unset RANK, or set them all."
            )
        return {} if not lacking else {"WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    found = _slurm(environment) or _open_mpi(environment)
    if found:
        return {name: environment.get(name, value) for name, value in found.items()}
    if environment.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']}, but RANK is not set; unset WORLD_SIZE for one process, "
            "or start the ranks with deepspeed, torchrun, srun, or mpirun."
        )
    return {}


def _slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """A task of `srun`. In the batch script itself some of these are set as well, but there is one process."""
    in_step = "SLURM_STEP_ID" in environment or environment.get("ENVIRONMENT") != "BATCH"
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    if "SLURM_PROCID" not in environment or not in_step or tasks == "1":
        return {}
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    per_node = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE") or tasks
    job = f"{environment.get('SLURM_JOB_ID', '')}.{environment.get('SLURM_STEP_ID', '')}"
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": environment.get("SLURM_LOCALID", environment["SLURM_PROCID"]),
        "LOCAL_WORLD_SIZE": str(_repeated(per_node)[int(environment.get("SLURM_NODEID", "0"))]),
        "MASTER_ADDR": first_host(nodes),
        "MASTER_PORT": _port(job),
    }


def _open_mpi(environment: Mapping[str, str]) -> dict[str, str]:
    tasks = environment.get("OMPI_COMM_WORLD_SIZE", "1")
    if tasks == "1" or "OMPI_COMM_WORLD_RANK" not in environment:
        return {}
    here = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", tasks)
    if here != tasks and "MASTER_ADDR" not in environment:
        raise UserError("mpirun on several nodes does not say which node is the first; add -x MASTER_ADDR=NAME.")
    return {
        "RANK": environment["OMPI_COMM_WORLD_RANK"],
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": environment.get("OMPI_COMM_WORLD_LOCAL_RANK", environment["OMPI_COMM_WORLD_RANK"]),
        "LOCAL_WORLD_SIZE": here,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _port(environment.get("PMIX_NAMESPACE") or environment.get("OMPI_MCA_ess_base_jobid") or ""),
    }


def first_host(nodes: str) -> str:
    """The first name in SLURM's notation: gpu003 for gpu[003-007,9],cpu1."""
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])


def _repeated(counts: str) -> list[int]:
    """2(x3),1 as 2, 2, 2, 1."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def _port(job: str) -> str:
    return str(FIRST_PORT + zlib.crc32(job.encode()) % PORTS)
