"""launch/supervise.py around small commands: what is restarted, and what is not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
from trainings import script, wait_until

from kogpt.train import command

SUPERVISE = Path(__file__).resolve().parents[2] / "launch" / "supervise.py"


SAYS = "import os; open(os.environ['KOGPT_STATUS_FILE'], 'w')"
"""What a rank leaves. `deepspeed` ends with 0 if its inner launcher was killed; the ranks say 143 then."""


def _command(count: Path, program: str) -> list[str]:
    return [sys.executable, "-c", f"open({str(count)!r}, 'a').write('x')\n{program}"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program as a module of this process, which starts again at once."""
    kept = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    module = script("supervise")
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    yield module
    for number, handler in kept:
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("program", "starts", "code"),
    [
        ("", 1, 0),
        ("raise SystemExit(2)", 1, 2),
        ("raise SystemExit(143)", 1, 143),
        ("raise SystemExit(1)", 3, 1),
        ("import os; os.kill(os.getpid(), 9)", 3, 137),
        ("raise SystemExit(len(open('COUNT').read()) < 2)", 2, 0),
        (f"{SAYS}.write('143')", 3, 137),
        (f"{SAYS}.write('1')", 3, 1),
        (f"{SAYS}.write('2')", 1, 2),
        (f"{SAYS}.write('0')", 1, 0),
    ],
)
def test_what_is_started_again(program: str, starts: int, code: int, here: ModuleType, tmp_path: Path) -> None:
    count = tmp_path / "count"
    words = _command(count, program.replace("COUNT", str(count)))
    assert here.supervise(words, 2, tmp_path) == code
    assert count.read_text() == "x" * starts


def test_a_signal_is_passed_on_and_ends_it(tmp_path: Path) -> None:
    count = tmp_path / "count"
    ready = "print('ready', flush=True)\ntime.sleep(60)"
    program = f"import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(5))\n{ready}"
    process = subprocess.Popen(
        [sys.executable, str(SUPERVISE), "--", *_command(count, program)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 5
    assert time.monotonic() - started < 20
    assert count.read_text() == "x"


def test_a_signal_between_two_starts_ends_it_too(
    here: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        if seconds == here.PAUSE_SECONDS:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)

    monkeypatch.setattr(here, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    count = tmp_path / "count"
    assert here.supervise(_command(count, "raise SystemExit(1)"), 3, tmp_path) == 1
    assert count.read_text() == "x"


def test_a_signal_while_the_command_starts_reaches_it(
    here: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Popen(subprocess.Popen):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    assert here.supervise([sys.executable, "-c", "import time; time.sleep(60)"], 3, tmp_path) == 143


LAUNCHER = """
import os, subprocess, sys, time
if os.path.exists(LOCK):
    sys.exit(2)
if len(open(COUNT).read()) == 2:
    sys.exit(0)
subprocess.Popen([sys.executable, "-c", RANK, "launch/train.py"], start_new_session=True)
while not os.path.exists(LOCK):
    time.sleep(0.02)
os.kill(os.getpid(), 9)
"""
RANK = """
import os, signal, time
def interrupt(*_):
    os.unlink(LOCK)
    os._exit(130)
signal.signal(signal.SIGINT, interrupt)
launcher = os.getppid()
with open(f"{LOCK}.new", "w") as file:
    file.write(str(os.getpid()))
os.rename(f"{LOCK}.new", LOCK)
while os.getppid() == launcher:
    time.sleep(0.02)
time.sleep(SECONDS)
os.unlink(LOCK)
open(os.environ["KOGPT_STATUS_FILE"], "w").write("143")
"""
"""As a rank under torchrun, in a session of its own: when its launcher is killed, it saves, which takes SECONDS."""


def _killed_launcher(folder: Path, seconds: float) -> tuple[list[str], Path, Path]:
    """The command, the file with an `x` for each start, and the rank's lock with its process id."""
    count, lock = folder / "count", folder / "lock"
    rank = f"LOCK, SECONDS = {str(lock)!r}, {seconds}\n{RANK}"
    values = f"COUNT, LOCK, RANK = {str(count)!r}, {str(lock)!r}, {rank!r}"
    return _command(count, f"{values}\n{LAUNCHER}"), count, lock


def test_the_next_start_waits_for_ranks_that_outlive_their_launcher(here: ModuleType, tmp_path: Path) -> None:
    words, count, _ = _killed_launcher(tmp_path, 1.0)
    assert here.supervise(words, 3, tmp_path) == 0
    assert count.read_text() == "xx"


def test_ranks_that_never_end_are_killed(here: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "SAVE_SECONDS", 0.0)
    words, _, lock = _killed_launcher(tmp_path, 600.0)
    assert here.supervise(words, 0, tmp_path) == 137
    rank = int(lock.read_text())
    wait_until(lambda: not _lives(rank), 30, "the rank is killed")


def test_ranks_that_outlive_their_launcher_are_told_too(
    here: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = here._wait

    def wait(*arguments: Any) -> int:
        code = whole(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return code

    monkeypatch.setattr(here, "_wait", wait)
    words, count, lock = _killed_launcher(tmp_path, 600.0)
    started = time.monotonic()
    assert here.supervise(words, 3, tmp_path) == 137
    assert time.monotonic() - started < here.SAVE_SECONDS / 2
    assert count.read_text() == "x"
    assert not lock.exists(), "it has ended by itself"


def test_other_programs_of_a_script_are_not_waited_for(here: ModuleType, tmp_path: Path) -> None:
    """Such as `tensorboard &` before the training."""
    other = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    started = time.monotonic()
    assert here.supervise(_command(tmp_path / "count", other), 0, tmp_path) == 0
    assert time.monotonic() - started < here.SAVE_SECONDS / 2


def test_what_a_rank_starts_is_no_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's service, for one, ends later by itself: nobody should wait for it or kill it."""
    status = tmp_path / "status"
    monkeypatch.setenv("KOGPT_STATUS_FILE", str(status))
    monkeypatch.setattr(command.distributed, "leave", sys.exit)
    with pytest.raises(SystemExit):
        command.end(lambda: int("KOGPT_STATUS_FILE" in os.environ))
    assert status.read_text() == "0"


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is no command"),
        (["--max-restarts", "-1", "--", "true"], "--max-restarts is -1; give 0 or more"),
        (["--", "no-such-program", "x"], "no-such-program cannot be started: No such file"),
    ],
)
def test_a_wrong_command_line_is_a_sentence(words: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, str(SUPERVISE), *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_status_that_a_launcher_hides_is_final_too(tmp_path: Path) -> None:
    """As torchrun: its ranks say 2, it says 1."""
    count = tmp_path / "count"
    program = "import os; open(os.environ['KOGPT_STATUS_FILE'], 'w').write('2'); raise SystemExit(1)"
    words = [sys.executable, str(SUPERVISE), "--", *_command(count, program)]
    assert subprocess.run(words, timeout=60).returncode == 2
    assert count.read_text() == "x"
