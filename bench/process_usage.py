"""What preprocessing costs its machine, by role: CPU seconds so far, and the peak of memory. Linux, psutil.

Roles: the driver (this process), its Ray actors with their JVMs, Ray's own processes below the driver, and the rest of
the machine. A process that has ended is counted no more.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_JVM_THREADS = ("C1 Comp", "C2 Comp", "VM Thread", "GC Thread")


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far: of this process and all below it by role, of all others, and of each thread of the JVMs."""

    roles: Counter[str]
    jvm: dict[tuple[int, int, str], float]

    @classmethod
    def now(cls) -> "Usage":
        me = psutil.Process()
        roles: Any = Counter()  # of seconds
        jvm = {}
        for process in [me, *me.children(recursive=True)]:
            role = "driver" if process == me else role_of(process)
            roles[role] += sum(process.cpu_times()[:4])
            for thread in process.threads() if role == "actors" else ():
                name = Path(f"/proc/{process.pid}/task/{thread.id}/comm").read_text()
                if name.startswith(_JVM_THREADS):
                    jvm[process.pid, thread.id, name] = thread.user_time + thread.system_time
        busy = psutil.cpu_times()
        roles["others"] = busy.user + busy.nice + busy.system - roles.total()
        return cls(roles, jvm)

    def since(self, before: "Usage") -> dict[str, float]:
        """The difference."""
        roles = ("driver", "ray", "actors", "others")
        used: dict[str, float] = {role: self.roles[role] - before.roles[role] for role in roles}
        used["jvm"] = sum(seconds - before.jvm.get(thread, 0.0) for thread, seconds in self.jvm.items())
        return used


def role_of(process: psutil.Process) -> str:
    """Whose process below the driver it is."""
    return "actors" if "".join(process.cmdline()[:1]).startswith("ray::Actor") else "ray"


def sample_memory(driver: psutil.Process, peak: Counter[str]) -> None:
    """Raise the peaks to what the driver and all below it hold now."""
    now: Counter[str] = Counter()
    for process in [driver, *driver.children(recursive=True)]:
        try:
            memory, actor = process.memory_full_info(), role_of(process) == "actors"
        except psutil.Error:
            continue
        now["node_pss"] += memory.pss // 2**20
        now["actors_pss"] += actor * memory.pss // 2**20
        if actor:
            now["worker_pss"] = max(now["worker_pss"], memory.pss // 2**20)
            now["worker_rss"] = max(now["worker_rss"], memory.rss // 2**20)
    now["rest_pss"] = now["node_pss"] - now["actors_pss"]
    peak |= now
