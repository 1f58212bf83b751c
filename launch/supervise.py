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
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import tyro

from kogpt.common.system import end_group, signal_group

FINAL = {0, 2, 130, 138, 143}
PAUSE_SECONDS = 3.0


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


def supervise(command: list[str], max_restarts: int, status: Path) -> int:
    """Run the command, restart it after crashes, and return its last exit status.

    `status` is the file in which launch/train.py leaves its own.
    """
    told: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: object) -> None:
        told.append(number)
        if process is not None:
            signal_group(process.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    code = 0
    for attempt in range(max_restarts + 1):
        if attempt:
            print(f"supervise.py: exit status {code}; restart {attempt} of {max_restarts}", file=sys.stderr, flush=True)
            time.sleep(PAUSE_SECONDS)
            if told:
                break
        status.write_text("")
        environment = os.environ | {"KOGPT_STATUS_FILE": str(status)}
        try:
            process = subprocess.Popen(command, start_new_session=True, env=environment)
        except OSError as error:
            _refuse(f"{command[0]} cannot be started: {error.strerror}.")
        code = process.wait()
        code = 128 - code if code < 0 else code
        _end_group(process)
        if code not in FINAL and (said := status.read_text(encoding="utf-8")):
            code = int(said)
        if told or code in FINAL:
            break
    return code


def _end_group(process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Wait for ranks that outlive a killed launcher, because they save a checkpoint first; then kill what is left."""
    end = time.monotonic() + seconds
    while signal_group(process.pid, 0) and time.monotonic() < end:
        time.sleep(0.2)
    end_group(process.pid)


def main() -> None:
    """Parse what comes before `--`, and run the command that comes after it."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    options = tyro.cli(Supervision, args=words[:cut], prog="supervise.py", description=__doc__)
    if not words[cut + 1 :]:
        _refuse("there is no command; put it after ` -- `.")
    with tempfile.TemporaryDirectory() as folder:
        code = supervise(words[cut + 1 :], options.max_restarts, Path(folder) / "status")
    sys.exit(code)


if __name__ == "__main__":
    main()
