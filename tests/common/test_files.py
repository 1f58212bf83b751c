"""A file is complete or absent, whatever happens while it is written."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kogpt.common.files import atomic_folder, atomic_write, only_writer, remove_strays, sha256_of


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with atomic_write(path) as file:
        file.write(b"{}")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"{}"
    assert os.listdir(tmp_path) == ["manifest.json"]


@pytest.mark.parametrize("write", [atomic_write, atomic_folder])
def test_a_folder_that_takes_no_names_is_an_error_that_names_the_path(write: Any) -> None:
    """The kernel says of /proc what it says of a folder that is gone: "no such file"."""
    with pytest.raises(OSError, match="'/proc/mine'"), write("/proc/mine"):
        pass


def test_an_exception_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "latest"
    path.write_bytes(b"before")
    with pytest.raises(OSError), atomic_write(path) as file:
        file.write(b"half")
        raise OSError("disk full")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["latest"]


def test_a_kill_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "latest"
    path.write_bytes(b"before")
    program = (
        "import os, signal, sys; from kogpt.common.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as f: f.write(b'half'); f.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program, path])
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"before"
    assert len(os.listdir(tmp_path)) == 2
    with atomic_write(path) as file:  # the stray temporary file is in nobody's way
        file.write(b"after")
        remove_strays(tmp_path)
        assert len(os.listdir(tmp_path)) == 2, "the killed writer's goes, the one at work stays"
    assert os.listdir(tmp_path) == ["latest"]
    assert path.read_bytes() == b"after"


def test_strays_are_names_that_only_this_project_makes(tmp_path: Path) -> None:
    names = ("latest.tmp", ".latest.tmp", "x.y.tmp", ".x.kogpt-12", "x.kogpt-0123456789abcdef")
    for name in names:
        (tmp_path / name).mkdir()
    remove_strays(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_two_writers_of_one_path_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["x"]


def test_a_long_name_and_a_fifo_can_be_written(tmp_path: Path) -> None:
    long = tmp_path / ("가" * 85)
    with atomic_write(long) as file:
        file.write(b"x")
    assert long.read_bytes() == b"x"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE)
    with atomic_write(fifo) as file:
        file.write(b"through")
    assert reader.communicate(timeout=10)[0] == b"through"
    assert fifo.is_fifo()


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with atomic_folder(folder) as inside:
        (inside / "below").mkdir()
        (inside / "below" / "file").write_text("x")
        assert not folder.exists()
    assert (folder / "below" / "file").read_text() == "x"
    assert os.listdir(tmp_path / "new") == ["out"]


def test_a_folder_that_fails_leaves_nothing_and_touches_nothing(tmp_path: Path) -> None:
    neighbour = tmp_path / "out.tmp"
    neighbour.mkdir()
    (neighbour / "thesis").write_text("mine")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "out") as inside:
        (inside / "file").write_text("x")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["out.tmp"]
    with pytest.raises(OSError), atomic_folder(neighbour):
        pass
    assert (neighbour / "thesis").read_text() == "mine"
    assert os.listdir(tmp_path) == ["out.tmp"]


def test_sha256_of(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"kogpt" * 100_000)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"kogpt" * 100_000).hexdigest()


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    with only_writer(tmp_path / "lock") as first, only_writer(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with only_writer(tmp_path / "lock") as third:
        assert third
