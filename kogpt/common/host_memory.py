"""The memory of this machine that this process may use, which is often less than the machine has."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from kogpt.common.cgroups import CGROUPS, OWN, groups

_FILES = (("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))
"""Of cgroups v2 and v1: the limit, what is used of it, and how the names in memory.stat begin."""


class HostMemory(NamedTuple):
    """Bytes."""

    free: int
    total: int


def host_memory(cgroups: Path = CGROUPS, own: Path = OWN) -> HostMemory:
    """The machine's memory, limited by the cgroups of this process (v1 and v2)."""
    machine = psutil.virtual_memory()
    found = [HostMemory(machine.available, machine.total)]
    for folder in groups("memory", cgroups, own):
        for limit, used, prefix in _FILES:
            with suppress(OSError, ValueError, KeyError):  # no such file, or "max"
                total = int((folder / limit).read_text(encoding="utf-8"))
                lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
                counts = dict(line.split() for line in lines)
                # The kernel takes back what it keeps of files before it ends a process.
                cached = sum(int(counts[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
                found.append(HostMemory(total - int((folder / used).read_text(encoding="utf-8")) + cached, total))
    return HostMemory(max(0, min(one.free for one in found)), min(one.total for one in found))
