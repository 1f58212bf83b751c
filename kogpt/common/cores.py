"""The CPU, and the cores of it that this process may use, which are often fewer than the machine has."""

import math
import platform
import re
from contextlib import suppress
from pathlib import Path

from kogpt.common.cgroups import CGROUPS, OWN, groups
from kogpt.common.system import affinity


def usable_cores(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """The cores that this process may use: its CPU affinity, limited by the quotas of its cgroups (v1 and v2)."""
    quotas = [cores for folder in groups("cpu", cgroups, own) for cores in _quota(folder)]
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
