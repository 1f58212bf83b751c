"""launch/train.py on two machines: `deepspeed --hostfile` over ssh with one rank each, as docs/training.md describes.

The reference is the same training with two ranks on one machine. The two nodes share one folder, as over NFS.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import make_corpus
from machines import SHARED, Machine, machines, missing, wait_for
from trainings import SHAPE, deepspeed_file, losses

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

# A connection to a machine that fell silent ends after 15 s, so that the job does.
SSH_CONFIG = "StrictHostKeyChecking no\nServerAliveInterval 5\nServerAliveCountMax 3\n"
STEPS = 12


@dataclass
class Nodes:
    """Two machines with the project and its environment."""

    first: Machine
    second: Machine

    def run_folder(self, run: str) -> Path:
        return self.first.shared / run

    def command(self, launcher: str, run: str, steps: int) -> str:
        """What is typed on the first node."""
        options = f"--corpus {SHARED}/corpus --out {SHARED}/{run} --deepspeed-config {SHARED}/ds.json"
        train = f"launch/train.py {options} --steps {steps} --save-every 4 --wandb off {' '.join(SHAPE)}"
        return f"cd kogpt; exec deepspeed -q {launcher} --master_port 29511 {train}"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    if reason := missing("pdsh"):
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("nodes")
    with machines(base, "laptop", "node-a", "node-b") as (laptop, first, second):
        make_corpus(base / "shared/corpus")
        deepspeed_file(base / "shared/ds.json", stage=2)
        for node in (first, second):
            (node.home / ".bashrc").write_text("export PATH=~/kogpt/.venv/bin:$PATH\n")
            (node.home / ".ssh/id_ed25519").write_bytes((laptop.home / ".ssh/id_ed25519").read_bytes())
            (node.home / ".ssh/id_ed25519").chmod(0o600)
            (node.home / ".ssh/config").write_text(SSH_CONFIG)
            sync = "rsync -a -e 'ssh -o StrictHostKeyChecking=no' --filter=':- .gitignore' --exclude=.git"
            copied = laptop.run(f"cd kogpt; {sync} ./ {node.address}:kogpt/")
            assert copied.returncode == 0, copied.stdout
        # what the ranks of other nodes get of the environment; no comment, no blank line
        path = f"{first.run('echo $PATH').stdout.strip()}"
        (first.home / ".deepspeed_env").write_text(f"PATH={path}\nDS_ACCELERATOR=cpu\nOMP_NUM_THREADS=1\n")
        (first.home / "hostfile").write_text("node-a slots=1\nnode-b slots=1\n")
        yield Nodes(first, second)


def test_two_nodes_train_as_one_with_two_ranks(nodes: Nodes) -> None:
    one = nodes.first.run(nodes.command("--num_accelerators 2", "one", STEPS), limit=150)
    assert one.returncode == 0, one.stdout[-3000:]
    both = nodes.first.run(nodes.command("--hostfile ~/hostfile", "both", STEPS), limit=150)
    assert both.returncode == 0, both.stdout[-3000:]
    expected = losses(nodes.run_folder("one"))
    assert len(expected) == STEPS
    assert expected[-1] < expected[0]
    assert losses(nodes.run_folder("both")) == pytest.approx(expected, rel=1e-6)


def test_a_node_dies_and_the_other_goes_on(nodes: Nodes) -> None:
    steps = 100_000
    log = nodes.first.base / "dying.log"
    launcher = "--hostfile ~/hostfile"
    job = nodes.first.spawn(nodes.command(launcher, "dying", steps).replace("--save-every 4", "--save-every 50"), log)
    run = nodes.run_folder("dying")
    wait_for("a checkpoint", lambda: (run / "checkpoints/latest").exists() or job.poll() is not None, 120, 0.2)
    assert job.poll() is None, log.read_text()[-3000:]
    nodes.second.unplug()
    nodes.second.power_off()
    died = time.monotonic()
    try:
        code = job.wait(100)
    finally:
        job.kill()
    print(f"ended {time.monotonic() - died:.0f} s after the node's death, exit code {code}")
    assert code != 0
    assert time.monotonic() - died < 60
    wait_for("the ranks are gone", lambda: not nodes.first.pids("launch/train.py"), 30)
    saved = int((run / "checkpoints/latest").read_text().strip().removeprefix("step-"))
    alone = nodes.first.run(nodes.command("--num_accelerators 1", "dying", saved + 6), limit=150)
    assert alone.returncode == 0, alone.stdout[-3000:]
    assert len(losses(run)) == saved + 6
