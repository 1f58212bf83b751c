"""Files and signals where a system has less than Linux: what Windows and macOS lack is taken away."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kogpt.common import system
from kogpt.common.cores import usable_cores
from kogpt.common.files import atomic_folder, atomic_write, remove_strays


def test_files_are_written_where_folders_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses to open or replace a folder, to sync a file open for reading, and to rename an open file."""
    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setattr(system, "OPENS_FOLDERS", False)
    opened, replaced, sync = os.open, os.replace, os.fsync

    def open_(path: str, flags: int, mode: int = 0o777) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, mode)

    def replace(source: Path, target: Path) -> None:
        held = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        assert not any(name == str(source) or name.startswith(f"{source}/") for name in held)
        assert not target.is_dir()
        replaced(source, target)

    def fsync(descriptor: int) -> None:
        os.write(descriptor, b"")  # fails on a descriptor that only reads
        sync(descriptor)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(tmp_path / "글.txt") as file:
        file.write("글".encode())
    (tmp_path / "새 폴더").mkdir()
    with atomic_folder(tmp_path / "새 폴더") as inside:
        (inside / "below").mkdir()
        (inside / "below" / "file").write_text("x")
        remove_strays(tmp_path)
        assert inside.exists(), "nothing is known about its writer"
    assert (tmp_path / "글.txt").read_text(encoding="utf-8") == "글"
    assert (tmp_path / "새 폴더" / "below" / "file").read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["글.txt", "새 폴더"]


def test_the_installer_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("linux", "darwin", "win32"):
        monkeypatch.setattr(sys, "platform", name)
        found.append(system.install_command())
    pip = "python -m pip install -c constraints.txt -e ."
    assert found == ["make install", f".venv/bin/{pip}", rf".venv\Scripts\{pip}"]


def test_cores_and_groups_where_nobody_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "killpg")
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert not system.signal_group(os.getpid(), 0)


def test_the_handler_of_native_code_is_kept() -> None:
    code = "import faulthandler, os, signal; from kogpt.common.system import kept_handlers\n"
    code += "with kept_handlers(signal.SIGSEGV): faulthandler.enable()\n"
    code += "os.kill(os.getpid(), signal.SIGSEGV)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGSEGV, ""), "faulthandler would have printed the stack"


def test_the_exit_status_of_a_signal_is_the_same_on_every_system() -> None:
    """SIGUSR1 is 10 on Linux and 30 on macOS."""
    assert {number.name: code for number, code in system.STOP_STATUS.items()} == {
        "SIGINT": 130,
        "SIGTERM": 143,
        "SIGUSR1": 138,
    }
