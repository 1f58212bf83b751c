"""Requests to stop: a signal, or the death of a launcher. In: signals and parent processes. Out: `Stop.code`.

A signal to the `deepspeed` process alone would leave its ranks training, so a thread watches the launchers' pids.
"""

import os
import signal
import threading
from types import FrameType

import psutil

from kogpt.common.system import STOP_STATUS

INTERRUPTED, TERMINATED, OUT_OF_TIME = 130, 143, 138
"""Exit statuses: Ctrl-C; SIGTERM or a dead launcher; SLURM's warning that the time limit is near."""


class Stop:
    """A request to stop. Ranks agree on it in kogpt.train.step_metrics.

    `code` is 0, or the exit status to end with: 130 after SIGINT, 143 after SIGTERM or a launcher's death, 138 after
    SIGUSR1. A second SIGINT ends the rank at once. A SIGTERM after a SIGINT does not, because launchers pass on a
    Ctrl-C that way.
    """

    def __init__(self) -> None:
        self.code = 0
        for number in STOP_STATUS:
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, args=(_launchers(),), daemon=True).start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.code == INTERRUPTED:
            os._exit(self.code)
        self.code = self.code or STOP_STATUS[signal.Signals(number)]

    def _watch(self, launchers: list[psutil.Process]) -> None:
        pause = threading.Event()
        while all(map(_lives, launchers)):
            pause.wait(1.0)
        self.code = self.code or TERMINATED


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _launchers() -> list[psutil.Process]:
    """The processes between this rank and the command of the user."""
    found = []
    for process in psutil.Process().parents():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            break
        if not any(name in line for name in ("deepspeed", "torchrun", "torch.distributed", "launch/supervise.py")):
            break
        if "python" not in line:
            break
        found.append(process)
    return found
