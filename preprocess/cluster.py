"""Join a Ray cluster, or start Ray on this machine, and list the resources of its nodes.

Only `ray start` (or `ray up`) makes a machine part of a cluster. Ray's own messages are mostly switched off, because
users look at the driver's progress bar.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "RAY_worker_niceness", "0"
)  # with Ray's 15, other programs starve the workers until they seem to hang
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # each idles at 0.9 % of a core, in 50 MB
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from kogpt.common.errors import UserError

MIB = 1 << 20


def connect(address: str | None, workers: int | None) -> str:
    """Join the Ray cluster at `address`, by default that of this machine, or start Ray here.

    Returns a line that says which. The private Ray of another run is never joined.
    """
    given = address or os.environ.get("RAY_ADDRESS")
    chosen = given or _address_of_this_machine() or "local"
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    # Ray prints a paragraph per dead worker across the progress bar; the bar shows the number of deaths instead.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    if chosen != "local":
        try:
            _knock(chosen)
            ray.init(address=chosen, **quiet)
            return f"Ray: cluster of {sum(node['Alive'] for node in ray.nodes())} nodes"
        except (OSError, ValueError, RuntimeError) as error:
            if given:
                reason = one_line(error)
                raise UserError(
                    f"--ray-address {given}: no Ray cluster can be reached ({reason}); check it, or start Ray there"
                ) from None
    cores = max(workers or 0, os.cpu_count() or 1)
    store = 256 * MIB
    try:
        ray.init(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=store, **quiet)
    except Exception as error:  # Ray raises a plain Exception when its processes do not start
        raise UserError(f"Ray did not start on this machine ({one_line(error)}); run the same command again") from None
    return "Ray: this machine"


def _address_of_this_machine() -> str | None:
    """The cluster that this machine belongs to through `ray start`."""
    try:
        return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return None


def _knock(address: str) -> None:
    """Fail at once if nobody listens; Ray would retry for minutes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@dataclass(frozen=True)
class Node:
    """The resources of one node. A declared fraction of a core counts as none."""

    cores: int
    memory_mib: int

    def __str__(self) -> str:
        return f"{self.cores} CPU and {self.memory_mib} MiB"


def living_nodes() -> list[Node]:
    """The nodes that are alive now."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(node.get("CPU", 0)), int(node.get("memory", 0)) // MIB) for node in found]


def even_threads(cores: list[int], most: int) -> int:
    """The largest number of threads per process, up to `most`, that divides the cores of every node."""
    return next(n for n in range(most, 0, -1) if all(count % n == 0 for count in cores))


def one_line(error: Exception) -> str:
    """The message of an error on one line, at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
