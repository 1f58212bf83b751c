"""The control groups of this process, in which Linux, containers, and schedulers limit cores and memory."""

from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def groups(controller: str, cgroups: Path = CGROUPS, own: Path = OWN) -> list[Path]:
    """The folders that may limit this process by a controller such as "cpu" (v1 and v2); some may not exist."""
    found: list[Path] = []
    with suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            roots = [cgroups] if not controllers else [cgroups / controllers, cgroups / controller]
            for root in dict.fromkeys(roots):
                group = root / path.lstrip("/")
                # Limits of parent groups apply too. In a container the path may exist only on the host.
                found += [folder for folder in [group, *group.parents] if folder.is_relative_to(root)]
    return found
