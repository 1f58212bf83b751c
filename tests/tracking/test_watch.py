"""`kogpt.watch` beside trainings of a second or two that end in each of the ways, here and on another machine."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders import record
from trainings import PROJECT, records, wait_until

import kogpt
from kogpt.common.errors import UserError
from kogpt.tracking import watch as watching
from kogpt.tracking.metrics_file import MetricsFile
from kogpt.tracking.run_file import RunFile

TRAIN = f"""
import sys, time
sys.path.insert(0, {str(PROJECT)!r})
from pathlib import Path
from kogpt.tracking.metrics_file import MetricsFile
from kogpt.tracking.run_file import RunFile
run, end = Path("runs/봄 글"), sys.argv[-1]
run.mkdir(parents=True)
metrics = MetricsFile(run / "metrics.jsonl", 0, run / "metrics.jsonl")
file = RunFile(run / "run.json", dict(state="running", steps=4))
file.update(now=True)
for step in range(1, 3 if end == "hang" else 5):
    losses = dict(loss=5.0 / step, val_loss=2.0 + step % 3, val_bits_per_char=1.0 + step % 3)
    metrics.append(dict(step=step, step_s=0.1, tokens_per_s=9.0, **losses))
    time.sleep(0.05)
while end == "hang":
    time.sleep(0.1)
file.update(now=True, state=end)
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(watching, "SHARE", 0.5)


@contextmanager
def training(folder: Path, end: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that says of itself what a training says, started in `folder`; it trains into `runs/봄 글`."""
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-X", "utf8", "train.py", "--out", "runs/봄 글", end], cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_it_follows_a_training_from_its_start_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with training(tmp_path, "finished") as process:
        kogpt.watch(tmp_path / "runs/봄 글")
        assert process.wait(10) == 0
    captured = capsys.readouterr()
    assert captured.out == "Finished after 4 steps. The best of step 3: 1.00 bits per character.\n"
    assert "4/4" in captured.err
    assert "loss 1.2500, validation bits per character 2.0000" in captured.err


def test_a_run_that_has_ended_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with training(tmp_path, "stopped") as process:
        process.wait(30)
    monkeypatch.setattr(watching, "START_SECONDS", 0.1)
    began = time.monotonic()
    kogpt.watch(tmp_path / "runs/봄 글")
    assert time.monotonic() - began < watching.SILENT_SECONDS / 2


def test_it_ends_when_the_training_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "runs/봄 글"
    with training(tmp_path, "hang") as process:
        watcher = threading.Thread(target=kogpt.watch, args=(run,))
        watcher.start()
        wait_until(lambda: len(records(run)) == 2, 30, "two steps")
        time.sleep(0.2)
        assert watcher.is_alive()
        process.kill()
        watcher.join(20)
        assert not watcher.is_alive()
    said = capsys.readouterr().out
    assert said.startswith("Stopped after step 2 of 4.")
    assert said.endswith("The same command continues from there.\n")


def test_a_training_whose_command_line_does_not_name_it_is_known_by_its_lock(tmp_path: Path) -> None:
    run, other = tmp_path / "runs/봄 글", tmp_path / "runs/other"
    run.mkdir(parents=True)
    program = tmp_path / "demo_ranks.py"
    program.write_text(
        "import sys; from pathlib import Path; from kogpt.train.run_folder import hold\n"
        "lock = hold(Path(sys.stdin.readline().strip())); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-X", "utf8", str(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdin
        assert process.stdout
        assert not watching.trains_here(run)
        process.stdin.write(f"{run}\n")
        process.stdin.flush()
        process.stdout.readline()
        assert watching.trains_here(run)
        assert not watching.trains_here(other)
        process.stdin.close()
    assert not watching.trains_here(run)


def test_a_training_of_another_machine_is_followed_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "START_SECONDS", 0.1)
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0, tmp_path / "metrics.jsonl")
    file = RunFile(tmp_path / "run.json", {"state": "running", "steps": 9})
    file.update(now=True)
    metrics.append(record(1, step_s=0.1))
    watcher = threading.Thread(target=kogpt.watch, args=(tmp_path,))
    watcher.start()
    time.sleep(0.5)
    assert watcher.is_alive()
    file.update(now=True, state="failed")
    watcher.join(20)
    assert not watcher.is_alive()


def test_what_was_never_trained_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "START_SECONDS", 0.0)
    with pytest.raises(UserError, match=r"no training with --out .* is running here"):
        kogpt.watch(tmp_path / "none")


def test_a_picture_bears_missing_numbers() -> None:
    two = [record(1, step_s=100.0), record(2, loss=None, step_s=90.0)]
    assert watching.draw(two, 20).startswith(b"\x89PNG")
    assert watching._title(two, 20) == "step 2 of 20, 10 tokens/s, 28 min left"
    three = [*two, record(3, step_s=1.0, val_loss=2.0, val_bits_per_char=3.0)]
    assert watching.draw(three, 3).startswith(b"\x89PNG")
