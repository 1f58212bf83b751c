"""Join a Ray cluster, or start Ray on this machine, and list the resources of its nodes.

Only `ray start` (or `ray up`) makes a machine part of a cluster. Ray's own messages are mostly switched off, because
users look at the driver's progress bar.
"""

import atexit
import logging
import os
import secrets
import shutil
import signal
import socket
import stat
import tempfile
from contextlib import suppress
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
from ray._common.utils import get_default_ray_temp_dir, get_ray_address_file
from ray.exceptions import RayError

from kogpt.common.cores import usable_cores
from kogpt.common.errors import UserError
from kogpt.common.system import kept_handlers

log = logging.getLogger(__name__)

MIB = 1 << 20

# The path of a Unix socket has at most 107 bytes; Ray appends about 65 to its folder.
_LONGEST_FOLDER = 40

_OF_JAVA = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
"""A JVM in this process lives by its handlers of these. Ray replaces them at its start and removes them at its end."""


@kept_handlers(*_OF_JAVA)
def connect(address: str | None, workers: int | None) -> str:
    """Join the Ray cluster at `address`, by default that of this machine, or start Ray here.

    Returns a line that says which. The private Ray of another run is never joined.
    """
    given = address or os.environ.get("RAY_ADDRESS")
    chosen = given or _address_of_this_machine() or "local"
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    # Ray prints a paragraph per dead worker across the progress bar; the bar shows the number of deaths instead.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    protect_token()
    if chosen != "local":
        try:
            _knock(chosen)
            ray.init(address=chosen, **quiet)
            return f"Ray: cluster of {sum(node['Alive'] for node in ray.nodes())} nodes"
        except (OSError, ValueError, RuntimeError, RayError) as error:
            if given:
                reason = one_line(error)
                raise UserError(
                    f"--ray-address {given}: no Ray cluster can be reached ({reason}); check it, or start Ray there"
                ) from None
    # Ray's node ends itself if its agent takes more than 15 s to start, as on a slow or busy machine. Without a
    # dashboard the agent needs none of the packages that Ray has for one, and starts sooner.
    ray._private.utils.get_dashboard_dependency_error = lambda: ImportError("not wanted")
    # Without this, Ray writes a token to ~/.ray/auth_token: readable by everyone, and an error where there is no home.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    cores = max(workers or 0, usable_cores())
    store = 256 * MIB
    try:
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=store,
            _temp_dir=_short_folder(),
            **quiet,
        )
    except Exception as error:  # Ray raises a plain Exception when its processes do not start
        raise UserError(
            f"Ray did not start on this machine ({one_line(error)}); `ray start --head` says more about what is wrong"
        ) from None
    return "Ray: this machine"


@kept_handlers(*_OF_JAVA)
def leave() -> None:
    """Leave the cluster, or end the Ray that was started here."""
    ray.shutdown()


def protect_token() -> None:
    """Let only the owner read the file with the cluster's token; Ray writes it with the default umask."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token")
    with suppress(OSError, RuntimeError):
        path = path.expanduser()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _short_folder() -> str | None:
    """A temporary folder for Ray's sockets where the path of the usual one is too long for them."""
    usual = get_default_ray_temp_dir()
    if len(os.fsencode(os.path.abspath(usual))) <= _LONGEST_FOLDER:
        return None
    folder = tempfile.mkdtemp(prefix="kogpt-ray-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _address_of_this_machine() -> str | None:
    """The cluster that this machine belongs to through `ray start`.

    The folder is open to all users of the machine, so the file must belong to this user or to root.
    """
    path = get_ray_address_file(None)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            log.warning(f"{path} belongs to another user: its Ray cluster is not joined; --ray-address joins it")
            return None
        return file.read(300).strip()


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


def _node(found: dict[str, Any]) -> Node:
    resources = found["Resources"]
    return Node(int(resources.get("CPU", 0)), int(resources.get("memory", 0)) // MIB)


def living_nodes() -> list[Node]:
    """The nodes of the cluster now."""
    return [_node(node) for node in ray.nodes() if node["Alive"]]


class NodeWatch:
    """The living nodes, with a log line for each that joins or dies between two looks."""

    def __init__(self) -> None:
        self._alive: set[str] | None = None

    def look(self) -> list[Node]:
        """The nodes of the cluster now."""
        nodes = {node["NodeID"]: node for node in ray.nodes()}
        alive = {id for id, node in nodes.items() if node["Alive"]}
        before, self._alive = self._alive if self._alive is not None else alive, alive
        for id in sorted(before - alive):
            log.warning(f"Ray: node {_named(nodes.get(id, {}))} is dead; other nodes do its work again")
        for id in sorted(alive - before):
            log.info(f"Ray: node {_named(nodes[id])} has joined")
        return [_node(nodes[id]) for id in sorted(alive)]


def _named(node: dict[str, Any]) -> str:
    host, address = (node.get(f"NodeManager{what}") or "?" for what in ("Hostname", "Address"))
    return f"{host} ({address})"


def even_threads(cores: list[int], most: int) -> int:
    """The largest number of threads per process, up to `most`, that divides the cores of every node."""
    return next(n for n in range(most, 0, -1) if all(count % n == 0 for count in cores))


def one_line(error: Exception) -> str:
    """The message of an error on one line, at most 300 characters."""
    text = str(error)
    if "raised in its creation task" in text:  # a traceback, whose last line says why
        text = text.rstrip().rpartition("\n")[2].rpartition("UserError: ")[2]
    return " ".join(text.split())[:300] or type(error).__name__
