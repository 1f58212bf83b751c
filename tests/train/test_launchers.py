"""torch's variables from those of SLURM and Open MPI, and contradictory environments."""

import pytest

from kogpt.common.errors import UserError
from kogpt.train.launchers import first_host, rank_variables

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "7",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_NODELIST": "gpu[03-06]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
}


def test_srun() -> None:
    """Task 6 of 7: alone on the fourth node."""
    found = rank_variables(STEP | {"SLURM_PROCID": "6", "SLURM_LOCALID": "0", "SLURM_NODEID": "3"})
    first = rank_variables(STEP | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"})
    assert {name: found[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")} == {
        "RANK": "6",
        "WORLD_SIZE": "7",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
    }
    assert first["LOCAL_WORLD_SIZE"] == "2"
    assert found["MASTER_ADDR"] == first["MASTER_ADDR"] == "gpu03"
    assert found["MASTER_PORT"] == first["MASTER_PORT"]
    assert 20_000 <= int(found["MASTER_PORT"]) < 30_000


def test_few_of_the_variables_are_enough() -> None:
    found = rank_variables({"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "3"})
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]) == ("3", "8", "3")


def test_what_the_user_set_stands() -> None:
    mine = {"MASTER_ADDR": "here", "MASTER_PORT": "1234"}
    found = rank_variables(STEP | {"SLURM_PROCID": "1"} | mine)
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("here", "1234")


def test_one_process_is_alone() -> None:
    """In the batch script, in a shell of one task, and when torchrun has already set the variables."""
    batch = {"ENVIRONMENT": "BATCH", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}
    assert rank_variables(batch) == {}
    assert rank_variables(STEP | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) == {}
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert rank_variables(STEP | {"SLURM_PROCID": "0"} | torchrun) == {}
    assert rank_variables({"WORLD_SIZE": "1"}) == {}


def test_mpirun() -> None:
    mpi = {
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "PMIX_NAMESPACE": "prterun-a-123@1",
    }
    with pytest.raises(UserError, match="-x MASTER_ADDR"):
        rank_variables(mpi)
    found = rank_variables(mpi | {"MASTER_ADDR": "node-a"})
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_WORLD_SIZE"]) == ("1", "4", "2")
    assert rank_variables(mpi | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"})["MASTER_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize("left_over", [{"WORLD_SIZE": "2"}, {"RANK": "1"}, {"RANK": "0", "WORLD_SIZE": "2"}])
def test_what_is_left_over_is_named(left_over: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"; unset (WORLD_SIZE|RANK)"):
        rank_variables(left_over)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("a,b", "a"),
        ("gpu[003-007,9],cpu1", "gpu003"),
        ("r[1,2]n[05-06]", "r1n05"),
        ("x-1.lan", "x-1.lan"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
