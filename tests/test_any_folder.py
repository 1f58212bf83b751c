"""The whole way in an awkward place: odd folders, a home that cannot be written or is not named, a small /tmp.

The project is a symbolic link in a folder with spaces and Hangul, and the commands start in another folder, with
LC_ALL=C and umask 077. Each has a mount namespace of its own, for the home and for /tmp, so root is needed.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trainings import PROJECT, deepspeed_file

# $1: the home, read-only. The rest: the command. TMPDIR is short, or Ray's sockets would be elsewhere.
ENTER = """
set -eu
mount -t tmpfs -o ro tmpfs "$1"
mount -t tmpfs -o size=4m tmpfs /mnt
shift
umask 077
exec "$@"
"""

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Run a command there: a script of the project, or `kogpt`."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("a mount namespace needs root and unshare")
    project, home, elsewhere = (tmp_path / name for name in ("연구 자료/내 kogpt", "집", "딴 곳"))
    for folder in (project.parent, home, elsewhere):
        folder.mkdir(parents=True)
    project.symlink_to(PROJECT)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "OMP_NUM_THREADS", "PIP_CONSTRAINT")}
    kept |= {"LC_ALL": "C", "TMPDIR": "/mnt", "PYTHONPATH": str(project)}

    def call(program: str, *words: str | Path, named: bool = True) -> subprocess.CompletedProcess[str]:
        """`named`: whether HOME is set."""
        start = [
            sys.executable,
            *([str(project / program)] if program.endswith(".py") else ["-c", "from kogpt.cli import main; main()"]),
        ]
        command = ["unshare", "--mount", "sh", "-c", ENTER, "enter", str(home), *start, *map(str, words)]
        variables = kept | ({"HOME": str(home)} if named else {})
        done = subprocess.run(command, env=variables, cwd=elsewhere, capture_output=True, encoding="utf-8", timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return call


@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_from_articles_to_an_exported_model(call: Call, tmp_path: Path) -> None:
    data = tmp_path / "연구 자료" / "글과 모델"
    articles, corpus, run, model = (data / name for name in ("내 글", "말뭉치", "실행 1", "내보낸 모델"))
    articles.mkdir(parents=True)
    for number in range(12):
        text = f"제{number}조 국회는 국민의 보통·평등·직접·비밀선거에 의하여 선출된 국회의원으로 구성한다. " * 4
        (articles / f"글 {number}.txt").write_text(text, encoding="utf-8")
    file = deepspeed_file(tmp_path / "설정.json", 1)
    prepare = ("preprocess/run.py", "--input", articles, "--output", corpus, "--vocab-size", "300", "--workers", "1")
    train = ("launch/train.py", "--corpus", corpus, "--out", run, "--deepspeed-config", file)
    short = ("--depth", "1", "--steps", "2", "--max-seq-len", "32", "--prompts", "국회는", "--wandb", "offline")
    call(*prepare, "--val-fraction", "0.1")
    call(*train, *short)
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    written = call("kogpt", "generate", run, "국회는", "--max-new-tokens", "4", named=False).stdout
    assert written.startswith("국회는")
    call("kogpt", "export", run, model, named=False)
    call("kogpt", "report", run)
    for path in data.rglob("*"):
        assert not path.stat().st_mode & 0o077 or path.is_relative_to(articles) or path == data, path
