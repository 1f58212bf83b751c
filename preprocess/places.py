"""How many actors of a pool the nodes of a cluster have room for, now and as nodes join and die.

Ray places no more actors on a node than it has cores and declared memory for, and waits forever if no node has enough.
The driver therefore looks at the nodes itself, and raises an error if no node can ever hold an actor.
"""

import time

from kogpt.common.errors import UserError
from preprocess.cluster import NodeWatch, even_threads

UNPLACED_SECONDS = 20.0
_LOOK_SECONDS = 5.0


class Places:
    """The places for actors of one kind."""

    def __init__(self, wanted: int | None, most_threads: int, memory_mib: int):
        """`wanted` cores, or all; at most so many of them for an actor, which needs this memory."""
        self.threads = 0
        """Cores of an actor; 0 until a node with cores appears."""
        self.count = 0
        """How many actors there should be."""
        self._wanted, self._most_threads, self._memory_mib = wanted, most_threads, memory_mib
        self._nodes = NodeWatch()
        self._looked = -_LOOK_SECONDS
        self._placeable = time.monotonic()

    def look(self, somebody_works: bool) -> None:
        """Look at the nodes again, if the last time was some seconds ago. Raises `UserError` if there is no hope."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        nodes = self._nodes.look()
        working = [node for node in nodes if node.cores]
        if working and not self.threads:
            cores = [node.cores for node in working]
            self.threads = even_threads([*cores, self._wanted or cores[0]], self._most_threads)
        places = sum(min(node.cores // self.threads, node.memory_mib // self._memory_mib) for node in working)
        self.count = places if self._wanted is None or not places else self._wanted // self.threads
        if places or somebody_works:
            self._placeable = now
        elif now - self._placeable >= UNPLACED_SECONDS:
            raise UserError(
                f"no node of the Ray cluster can hold a worker, which needs {self.threads or 1} CPU and "
                f"{self._memory_mib} MiB of memory (the nodes have {'; '.join(map(str, nodes[:8])) or 'none alive'}); "
                "start Ray with more (ray start --num-cpus --memory), or add a node"
            )
