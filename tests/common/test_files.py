"""A file is whole or absent, whatever happens while it is written."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kogpt.common.files import atomic_write, sha256_of


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with atomic_write(path) as file:
        file.write(b"{}")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"{}"
    assert os.listdir(tmp_path) == ["manifest.json"]


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
    with atomic_write(path) as file:  # the stray temporary file is in nobody's way
        file.write(b"after")
    assert os.listdir(tmp_path) == ["latest"]
    assert path.read_bytes() == b"after"


def test_sha256_of(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"kogpt" * 100_000)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"kogpt" * 100_000).hexdigest()
