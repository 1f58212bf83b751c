"""Restart a training after a crash. It resumes from its last checkpoint.

    python launch/supervise.py --max-restarts 3 -- deepspeed launch/train.py --corpus CORPUS --out RUN

Works with every way to start launch/train.py (`deepspeed`, `torchrun`, plain `python`). A training is not restarted if
it finished, if it was told to stop (SIGTERM and SIGINT are passed on), or if you have to fix something first (exit
status 2). Launchers turn the exit status of their ranks into 1, so launch/train.py also writes its own to the file
that KOGPT_STATUS_FILE names.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil
import tyro

from kogpt.common.system import end_group, signal_group

FINAL = {0, 2, 130, 138, 143}
TERMINATED, KILLED = 143, 137
PAUSE_SECONDS = 3.0
POLL_SECONDS = 0.2
SAVE_SECONDS = 300.0
"""How long ranks that outlive their launcher may take for their last checkpoint."""


@dataclass(frozen=True)
class Supervision:
    """The options; the command comes after `--`."""

    max_restarts: int = 3
    """Maximum number of restarts."""

    def __post_init__(self) -> None:
        if self.max_restarts < 0:
            _refuse(f"--max-restarts is {self.max_restarts}; give 0 or more.")


def _refuse(sentence: str) -> NoReturn:
    print(f"supervise.py: {sentence}", file=sys.stderr)
    sys.exit(2)


def supervise(command: list[str], max_restarts: int, folder: Path) -> int:
    """Run the command, restart it after crashes, and return its last exit status.

    `folder` is for the files in which launch/train.py leaves its own, one for each start.
    """
    told = Told()
    code = 0
    for attempt in range(max_restarts + 1):
        if attempt:
            print(f"supervise.py: exit status {code}; restart {attempt} of {max_restarts}", file=sys.stderr, flush=True)
            time.sleep(PAUSE_SECONDS)
            if told.signals:
                break
        status = folder / f"status-{attempt}"
        status.touch()
        environment = os.environ | {"KOGPT_STATUS_FILE": str(status)}
        try:
            process = subprocess.Popen(command, start_new_session=True, env=environment)
        except OSError as error:
            _refuse(f"{command[0]} cannot be started: {error.strerror}.")
        code = _wait(process, told)
        _end_ranks(process, told, status)
        said = status.read_text(encoding="utf-8")
        # Ranks also say 143 if a launcher was killed. `deepspeed` itself then says 0, if that was its inner launcher.
        if code == 0 and said == str(TERMINATED):
            code = KILLED
        elif said and code < 128:
            code = int(said)
        if told.signals or code in FINAL:
            break
    return code


class Told:
    """The signals that this process gets from now on. Each is passed on once: a second Ctrl-C is another order."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.passed = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _frame: self.signals.append(number))

    def pass_on(self, leaders: Iterable[int]) -> None:
        """Send what is new to the sessions that these processes began."""
        for number in self.signals[self.passed :]:
            for leader in leaders:
                signal_group(leader, number)
            self.passed += 1


def _wait(process: subprocess.Popen[bytes], told: Told) -> int:
    """Wait for the command to end, and pass on what this process is told, also while the command was starting."""
    while (code := process.poll()) is None:
        told.pass_on([process.pid])
        time.sleep(POLL_SECONDS)
    return 128 - code if code < 0 else code


def _end_ranks(process: subprocess.Popen[bytes], told: Told, status: Path) -> None:
    """Wait for ranks that outlive a killed launcher, because they save a checkpoint first; then kill what is left."""
    end = time.monotonic() + SAVE_SECONDS
    while (ranks := _ranks(status)) and time.monotonic() < end:
        told.pass_on([process.pid, *(rank.pid for rank in ranks)])
        time.sleep(POLL_SECONDS)
    end_group(process.pid)
    for rank in _ranks(status):
        with suppress(psutil.NoSuchProcess):
            rank.kill()


def _ranks(status: Path) -> list[psutil.Process]:
    """The launchers and ranks of one start, also those in sessions of their own, as torchrun's ranks are.

    A script that starts the training may start other programs, which have the status file as well.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has just ended, or is somebody else's
            ours = process.environ().get("KOGPT_STATUS_FILE") == str(status)
            if ours and any(word.endswith("train.py") for word in process.cmdline()):
                found.append(process)
    return found


def main() -> None:
    """Parse what comes before `--`, and run the command that comes after it."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    options = tyro.cli(Supervision, args=words[:cut], prog="supervise.py", description=__doc__)
    if not words[cut + 1 :]:
        _refuse("there is no command; put it after ` -- `.")
    with tempfile.TemporaryDirectory() as folder:
        code = supervise(words[cut + 1 :], options.max_restarts, Path(folder))
    sys.exit(code)


if __name__ == "__main__":
    main()
