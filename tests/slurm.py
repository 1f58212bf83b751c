"""A SLURM cluster of one node for tests, with its own daemons, ports, and folder.

Jobs of the partition `urgent` preempt those of `main`, which then have a minute to end.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainings import wait_until

from kogpt.common.ports import free_port

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")

CONFIGURATION = """\
ClusterName=kogpt
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP GraceTime=60
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


def missing() -> list[str]:
    """The programs that are missing (Debian: slurmctld, slurmd, slurm-client)."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Slurm:
    """A running cluster: `run` any of its commands, `submit` a batch script, ask for a job's `state`."""

    def __init__(self, configuration: Path) -> None:
        self.environment = os.environ | {"SLURM_CONF": str(configuration)}

    def run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def submit(self, cwd: Path, *arguments: str) -> str:
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd).strip()

    def state(self, job: str) -> str:
        shown = self.run("scontrol", "--oneliner", "show", "job", job)
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)["JobState"]


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A cluster whose only node is this machine."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            controller=free_port(),
            daemon=free_port(),
            user="root",
            folder=folder,
            cores=os.cpu_count(),
        )
    )
    cluster = Slurm(configuration)
    daemons = []
    try:
        for name in ("slurmctld", "slurmd"):
            with open(folder / f"{name}.log", "wb") as log:
                command = [name, "-D", "-f", str(configuration)]
                daemons.append(subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log))

        def ready() -> bool:
            shown = subprocess.run(
                ["sinfo", "--noheader", "--format=%t"], env=cluster.environment, capture_output=True, text=True
            )
            return shown.stdout.strip() == "idle"

        wait_until(ready, 60, "the node is idle")
        yield cluster
    finally:
        subprocess.run(["scancel", "--full", "--partition=main"], env=cluster.environment, capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
