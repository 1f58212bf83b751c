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


STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$*" in
"-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/uv ;;
*--report*) echo '    "nvidia-cublas"' ;;
esac
"""
"""Python and uv, which write their words down. torch's newest build is the one for GPUs."""


@pytest.mark.parametrize(
    ("said", "setting", "build"),
    [
        (None, None, "auto"),
        ("9.0\n9.0\n", None, "auto"),
        ("7.5\n", None, "auto"),
        ("12.0\n7.0\n", None, "cu126"),
        ("6.1\n", None, "cu126"),
        ("7.0\n", "cu999", "cu999"),
        ("NVIDIA-SMI has failed because it could not communicate with the driver.\n", None, "auto"),
    ],
)
def test_old_gpus_get_the_build_that_has_kernels_for_them(
    said: str | None, setting: str | None, build: str, project: Path
) -> None:
    """uv goes by the driver: with one for CUDA 13, a V100 would get a build without kernels for it."""
    programs, log = project / "programs", project / "log"
    programs.mkdir()
    (project / "python").write_text(STAND_IN)
    (project / "constraints.txt").write_text("torch==2.13.0\n")
    if said is not None:
        (programs / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{said}'\n")
        (programs / "nvidia-smi").chmod(0o755)
    given = {"UV_TORCH_BACKEND": setting} if setting else {}
    assert install(project, PATH=f"{programs}:{os.defpath}", LOG=str(log), **given) == (0, "")
    assert f"--torch-backend={build} torch==2.13.0" in log.read_text()


def test_no_python(project: Path) -> None:
    assert install(project, PYTHON="python9") == (
        2,
        "kogpt: python9 was not found; install it (apt install python3).\n",
    )
