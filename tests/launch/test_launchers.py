"""launch/train.py under `srun`, with ranks that never come, and with a port that is taken."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainings import PROJECT, TRAIN, deepspeed_file, flags, records, wait_until

from kogpt.common.ports import free_port

SECONDS = 200.0
"""Time for anything that starts ranks, on a busy machine."""
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def _start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    return subprocess.Popen(
        [sys.executable, str(TRAIN), *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=kept | {"OMP_NUM_THREADS": "1"} | environment,
    )


def _srun(tasks: int, job: int, arguments: list[str]) -> list[subprocess.Popen[str]]:
    """What `srun --ntasks N` does on one node, with the variables it sets."""
    shared = {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": str(tasks),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": str(tasks),
        "SLURM_NODEID": "0",
    }
    return [_start(arguments, **shared, SLURM_PROCID=str(task), SLURM_LOCALID=str(task)) for task in range(tasks)]


@pytest.mark.parametrize("job", ["preprocess", "train"])
def test_every_srun_of_a_job_asks_for_the_cores_of_its_tasks(job: str) -> None:
    """Since SLURM 22.05, it does not take them from sbatch: the tasks would run on one core each."""
    text = (PROJECT / "launch" / f"{job}.sbatch").read_text(encoding="utf-8").replace("\\\n", "")
    commands = [line for line in text.splitlines() if line.lstrip().startswith("srun ")]
    assert commands
    assert all("--cpus-per-task=" in command for command in commands)


def test_srun_is_the_same_as_deepspeed_and_its_warning_saves(
    corpus: Path, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    """One run of two ranks; SIGUSR1, which says that the job's time is over, ends it with 138 behind a checkpoint."""
    run = tmp_path / "run"
    arguments = flags(corpus, run, deepspeed_file(tmp_path / "ds.json", 2), 100_000, "--eval-every", "100000")
    processes += _srun(2, os.getpid(), arguments)
    wait_until(lambda: len(records(run)) >= 3, SECONDS, "three steps")
    assert {"memory_gib_rank0", "memory_gib_rank1"} <= records(run)[0].keys()
    for process in processes:
        process.send_signal(signal.SIGUSR1)
    assert [process.wait(SECONDS) for process in processes] == [138, 138]
    assert (run / "checkpoints" / "latest").read_text().strip() == f"step-{len(records(run)):08d}"


def test_ranks_that_never_come(corpus: Path, tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """RANK and WORLD_SIZE left over from something else: a line soon, and SIGTERM ends the waiting at once."""
    arguments = flags(corpus, tmp_path / "run", deepspeed_file(tmp_path / "ds.json", 2), 1)
    left_over = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    process = _start(arguments, **left_over, MASTER_PORT=str(free_port()))
    processes.append(process)
    assert process.stderr is not None
    started = time.monotonic()
    for line in process.stderr:
        if "rank 0 waits at 127.0.0.1:" in line:
            break
    assert time.monotonic() - started < SECONDS
    process.terminate()
    assert process.wait(30) == -signal.SIGTERM


def test_a_left_over_world_size_is_a_sentence(corpus: Path, tmp_path: Path) -> None:
    process = _start(flags(corpus, tmp_path / "run", deepspeed_file(tmp_path / "ds.json", 2), 1), WORLD_SIZE="2")
    said = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 2
    assert "WORLD_SIZE is 2, but RANK is not set; unset WORLD_SIZE" in said
    assert "Traceback" not in said


def test_a_port_that_is_taken(corpus: Path, tmp_path: Path) -> None:
    """As where two trainings start with the `deepspeed` command's default."""
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1])
        one = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        process = _start(flags(corpus, tmp_path / "run", deepspeed_file(tmp_path / "ds.json", 2), 1), **one)
        said = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 2, said
    assert f"port {port} is taken" in said
    assert "Traceback" not in said
