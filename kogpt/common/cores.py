"""The CPU, and the cores of it that this process may use, which are often fewer than the machine has."""

import math
import platform
import re
from contextlib import suppress
from pathlib import Path

from kogpt.common.system import affinity


def usable_cores(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """The cores that this process may use: its CPU affinity, limited by the quotas of its cgroups (v1 and v2)."""
    quotas = []
    with suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            roots = [cgroups] if not controllers else [cgroups / controllers, cgroups / "cpu"]
            for root in roots:
                group = root / path.lstrip("/")
                # Limits of parent groups apply too. In a container the path may exist only on the host.
                for folder in [group, *group.parents]:
                    if folder.is_relative_to(root):
                        quotas += _quota(folder)
    return max(1, min([affinity(), *map(math.ceil, quotas)]))


def _quota(folder: Path) -> list[float]:
    """The cores that one cgroup may use, or none where it has no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period")
            )
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError):
        return []


def cpu_name(info: Path = Path("/proc/cpuinfo")) -> str | None:
    """The model of the CPU; None if the system does not say."""
    with suppress(OSError):
        if found := re.search(
            r"^model name\s*: *(.+)$", info.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
        ):
            return found[1].strip()
    return platform.processor() or None
