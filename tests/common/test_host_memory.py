"""The memory that a process may use, in fake trees of cgroups."""

from pathlib import Path

import psutil
import pytest

from kogpt import doctor
from kogpt.common.host_memory import HostMemory, host_memory

ROOT = Path(__file__).resolve().parents[2]
MACHINE = HostMemory(60 << 30, 64 << 30)
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available, total = MACHINE

    monkeypatch.setattr(psutil, "virtual_memory", Memory)


def _memory(root: Path, files: dict[str, str], own: str) -> HostMemory:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "own").write_text(own)
    return host_memory(root, root / "own")


def _v2(limit: str, used: int, cached: int, folder: str = "") -> dict[str, str]:
    stat = f"anon {used - cached}\nfile {cached}\ninactive_anon 7\nactive_file {cached // 4}\n"
    stat += f"inactive_file {cached - cached // 4}\nunevictable 0\n"
    return {f"{folder}memory.max": f"{limit}\n", f"{folder}memory.current": f"{used}\n", f"{folder}memory.stat": stat}


@pytest.mark.parametrize("own", ["0::/\n", "0::/../only/on/the/host\n"])
def test_a_container_has_its_limit_less_what_is_used_but_for_files(own: str, tmp_path: Path) -> None:
    files = _v2(str(4 * GIB), used=3 * GIB, cached=2 * GIB)
    assert _memory(tmp_path, files, own) == (3 * GIB, 4 * GIB)


def test_the_smallest_of_groups_and_machine_counts(tmp_path: Path) -> None:
    files = _v2(str(8 * GIB), 6 * GIB, 0, "job/") | _v2("max", GIB, 0, "job/step/") | _v2(str(GIB), 0, 0, "other/")
    assert _memory(tmp_path / "a", files, "0::/job/step\n") == (2 * GIB, 8 * GIB)
    assert _memory(tmp_path / "b", _v2(str(80 * GIB), 0, 0), "0::/\n") == MACHINE
    assert _memory(tmp_path / "c", _v2(str(GIB), 2 * GIB, 0), "0::/\n") == (0, GIB), "just lowered"


def test_version_1(tmp_path: Path) -> None:
    stat = "active_file 1\ninactive_file 1\n" + f"total_active_file {GIB}\ntotal_inactive_file {GIB}\n"
    files = {"limit_in_bytes": str(4 * GIB), "usage_in_bytes": str(3 * GIB), "stat": stat}
    files = {f"memory/docker/1/memory.{name}": content for name, content in files.items()}
    own = "4:memory:/docker/1\n3:cpu,cpuacct:/\n0::/\n"
    assert _memory(tmp_path, files, own) == (3 * GIB, 4 * GIB)
    files["memory/docker/1/memory.limit_in_bytes"] = "9223372036854771712\n"
    assert _memory(tmp_path, files, own) == MACHINE, "no limit"


def test_where_nobody_can_say(tmp_path: Path) -> None:
    assert host_memory(tmp_path, tmp_path / "none") == MACHINE
    assert _memory(tmp_path, _v2("nonsense", 0, 0), "0::/\n") == MACHINE
    assert _memory(tmp_path, _v2(str(GIB), 0, 0) | {"memory.stat": "anon 0\n"}, "0::/\n") == MACHINE


def test_everybody_who_asks_sees_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [path for room in ("kogpt", "preprocess") for path in (ROOT / room).rglob("*.py")]
    asking = [path.name for path in sources if "virtual_memory" in path.read_text(encoding="utf-8")]
    assert asking == ["host_memory.py"]
    monkeypatch.setattr(doctor, "host_memory", lambda: HostMemory(2 * GIB, 4 * GIB))
    finding = doctor._memory()
    assert finding.found == "2.0 of 4.0 GiB available"
    assert "give the container or job more" in (finding.mend or "")
