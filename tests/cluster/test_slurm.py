"""launch/*.sbatch on a real SLURM of one node: preprocessing in its own Ray cluster, and interrupted training."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import make_corpus
from slurm import Slurm, missing, slurm
from trainings import PROJECT, deepspeed_file, flags, records, wait_until

from kogpt.data.corpus import TokenCorpus

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(missing()) or os.getuid() != 0, reason=f"needs root and {', '.join(missing())}"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def test_preprocessing_in_an_allocation(cluster: Slurm, tmp_path: Path) -> None:
    articles, output, log = tmp_path / "articles.jsonl", tmp_path / "corpus", tmp_path / "log"
    lines = [json.dumps({"text": f"{number}번째 글은 짧다. 그래도 글이다."}) for number in range(40)]
    articles.write_text("\n".join(lines), encoding="utf-8")
    job = cluster.submit(
        PROJECT,
        *("--cpus-per-task=2", "--mem-per-cpu=0", f"--output={log}", "launch/preprocess.sbatch"),
        *("--input", str(articles), "--output", str(output), "--vocab-size", "300", "--analyzer", "none"),
    )
    wait_until(lambda: cluster.state(job) not in ("PENDING", "RUNNING", "COMPLETING"), 150, "the job ends")
    assert cluster.state(job) == "COMPLETED", log.read_text()
    assert len(TokenCorpus.open(output)) == 40
    assert "cluster of 1 nodes" in log.read_text()


def test_a_training_that_is_cut_off_goes_on_in_the_queue(cluster: Slurm, tmp_path: Path) -> None:
    """SIGUSR1 is what SLURM sends before the time is over; two tasks are two ranks of one training."""
    run, log, steps = tmp_path / "run", tmp_path / "log", 400
    corpus, config = make_corpus(tmp_path / "corpus"), deepspeed_file(tmp_path / "ds.json", 1)
    arguments = flags(corpus, run, config, steps, "--eval-every", "1000", "--save-every", "1000")
    job = cluster.submit(
        PROJECT,
        *("--gpus-per-node=0", "--ntasks-per-node=2", "--cpus-per-task=1", "--mem-per-cpu=0", f"--output={log}"),
        *("launch/train.sbatch", *arguments),
    )
    wait_until(lambda: len(records(run)) > 10, 120, "steps are made")
    cluster.run("scancel", "--signal=USR1", job)
    wait_until(lambda: (run / "checkpoints" / "latest").exists(), 60, "a checkpoint is saved")
    saved = len(records(run))
    assert saved < steps
    wait_until(lambda: cluster.state(job) == "PENDING", 60, "the job is queued again")
    # SLURM waits two minutes by itself; in less than some seconds its daemon takes the new start for the old one.
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now+10seconds")
    wait_until(lambda: cluster.state(job) == "COMPLETED", 200, "the job goes on and ends")
    assert [record["step"] for record in records(run)] == list(range(1, steps + 1)), log.read_text()
    assert f"after step {saved}" in log.read_text()


PYTHON = f"""#!{sys.executable}
import pathlib, socket, sys, time
words = dict(zip(sys.argv, sys.argv[1:]))
if "--port" in words:
    ray = socket.create_server(("", int(words["--port"])))
    time.sleep(600)
pathlib.Path("started").touch()
if "--ray-address" not in words:
    time.sleep(600)
host, port = words["--ray-address"].split(":")
while True:
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError:
        sys.exit(1)
    time.sleep(0.2)
"""
"""Instead of a clone's Python: Ray and the ranks end when they get SIGTERM, and the driver when Ray has ended."""


@pytest.mark.parametrize("name", ["train", "preprocess"])
def test_a_preempted_job_that_ends_within_its_grace_time_is_queued_again(
    name: str, cluster: Slurm, tmp_path: Path
) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    wants = ("--gpus-per-node=0", "--cpus-per-task=1", "--mem-per-cpu=0", f"--output={tmp_path / 'log'}")
    job = cluster.submit(tmp_path, *wants, f"{PROJECT}/launch/{name}.sbatch")
    wait_until((tmp_path / "started").exists, 60, "the job runs")
    cluster.submit(tmp_path, "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap", "true")
    wait_until(lambda: cluster.state(job) not in ("RUNNING", "SIGNALING", "COMPLETING"), 60, "the job is preempted")
    assert cluster.state(job) == "PENDING", (tmp_path / "log").read_text()
    cluster.run("scancel", job)
