"""launch/install.sh refuses what cannot work before it downloads anything. The whole of it: test_containers.py."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainings import PROJECT


@pytest.fixture
def project() -> Iterator[Path]:
    """A folder with the script that other users can enter, unlike pytest's, and an interpreter that is only a name."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        clone = Path(folder, "연구 자료")
        (clone / "launch").mkdir(parents=True)
        shutil.copy(PROJECT / "launch/install.sh", clone / "launch")
        (clone / "python").write_text("#!/bin/sh\nexit ${ANSWER:-0}\n")
        for path in (Path(folder), clone, clone / "launch", clone / "python"):
            path.chmod(0o755)
        yield clone


def install(project: Path, *by: str, **environment: str) -> tuple[int, str]:
    """Exit status, and what it said."""
    done = subprocess.run(
        [*by, "sh", str(project / "launch/install.sh")],
        cwd="/",
        env={"PATH": os.defpath, "PYTHON": str(project / "python")} | environment,
        capture_output=True,
        encoding="utf-8",
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_clone_of_another_user(project: Path) -> None:
    code, said = install(project, "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")
    assert code == 2
    assert said == f"kogpt: {project} is not yours to write; clone the project into a folder of your own.\n"


def test_an_old_python(project: Path) -> None:
    code, said = install(project, ANSWER="1")
    assert code == 2
    assert "is too old; kogpt needs Python 3.11 or later" in said


def test_no_python(project: Path) -> None:
    assert install(project, PYTHON="python9") == (
        2,
        "kogpt: python9 was not found; install it (apt install python3).\n",
    )
