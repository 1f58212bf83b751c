"""launch/supervise.py around small commands: what is restarted, and what is not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUPERVISE = Path(__file__).resolve().parents[2] / "launch" / "supervise.py"


def _command(count: Path, program: str) -> list[str]:
    return [sys.executable, "-c", f"open({str(count)!r}, 'a').write('x')\n{program}"]


@pytest.mark.parametrize(
    ("program", "starts", "code"),
    [
        ("", 1, 0),
        ("raise SystemExit(2)", 1, 2),
        ("raise SystemExit(143)", 1, 143),
        ("raise SystemExit(1)", 3, 1),
        ("import os; os.kill(os.getpid(), 9)", 3, 137),
        ("raise SystemExit(len(open('COUNT').read()) < 2)", 2, 0),
    ],
)
def test_what_is_started_again(program: str, starts: int, code: int, tmp_path: Path) -> None:
    count = tmp_path / "count"
    command = _command(count, program.replace("COUNT", str(count)))
    done = subprocess.run([sys.executable, str(SUPERVISE), "--max-restarts", "2", "--", *command], timeout=60)
    assert done.returncode == code
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


def test_a_signal_between_two_starts_ends_it_too(tmp_path: Path) -> None:
    count = tmp_path / "count"
    process = subprocess.Popen(
        [sys.executable, str(SUPERVISE), "--", *_command(count, "raise SystemExit(1)")],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "restart 1" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    assert count.read_text() == "x"


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
    command = [sys.executable, str(SUPERVISE), "--", *_command(count, program)]
    assert subprocess.run(command, timeout=60).returncode == 2
    assert count.read_text() == "x"
