"""Output for the user: a progress bar per stage, a summary table, and the W&B run if there is one.

Progress goes to stderr, results to stdout.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kogpt.common.errors import UserError
from kogpt.common.progress import ProgressBar
from kogpt.common.wandb import Mode, decided, logged_in, quiet_settings
from kogpt.data.corpus import count_rows


class Progress:
    """The progress bar of one stage: articles/s, characters/s, remaining time, and the state of the workers."""

    def __init__(self, stage: str, total: int | None, done: int, log: "Log | None", unit: str = "articles"):
        self._bar = ProgressBar(total, f" {unit}", done=done, title=stage)
        self._stage, self._log = stage, log
        self._began, self.chars = time.monotonic(), 0
        self.speeds: list[tuple[float, float]] = []
        """(seconds since the beginning, characters/s since the entry before), at most one a second"""
        self._noted = (0.0, 0)

    def add(self, articles: int, chars: int, known: tuple[int | None, int], **happened: int) -> None:
        """Advance by this many articles. `known` are the total and the number of those that were done before.

        `happened` are counts to show (workers, deaths, quarantined).
        """
        self._bar.of(*known)
        self.chars += chars
        seconds = time.monotonic() - self._began
        rate = self.chars / max(1e-9, seconds)
        if seconds - self._noted[0] >= 1:
            self.speeds.append((seconds, (self.chars - self._noted[1]) / (seconds - self._noted[0])))
            self._noted = (seconds, self.chars)
        shown = [f"{rate:,.0f} chars/s", *(f"{count} {name}" for name, count in happened.items())]
        self._bar.advance(articles, ", ".join(shown))
        numbers = {"articles": self._bar.done, "chars_per_s": rate, **happened}
        if self._log is not None:
            self._log.send({f"{self._stage}/{name}": number for name, number in numbers.items()})

    def close(self) -> float:
        """End the bar, and return the seconds that the stage took."""
        self._bar.close()
        return time.monotonic() - self._began


class Log:
    """The W&B run, if there is one."""

    def __init__(self, mode: Mode, folder: Path, settings: dict[str, Any]):
        self._run: Any = None
        self._sent = 0.0
        mode = decided(mode)
        if mode != "off":
            import wandb

            if mode == "online" and not logged_in():
                raise UserError("--wandb online needs an account: run wandb login, or give --wandb offline")
            self._run = wandb.init(
                project="kogpt",
                job_type="preprocess",
                name=folder.name,
                dir=str(folder.parent),
                mode=mode,
                config=settings,
                settings=quiet_settings(mode),
            )

    def send(self, numbers: dict[str, float], at_once: bool = False) -> None:
        """Log numbers, at most every 2 s."""
        if self._run is not None and (at_once or time.monotonic() - self._sent >= 2):
            self._sent = time.monotonic()
            self._run.log(numbers)

    def finish(self, summary: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.summary.update(summary)
            self._run.finish()
            self._run = None


@contextmanager
def log_to_wandb(mode: Mode, folder: Path, settings: dict[str, Any]) -> Iterator[Log]:
    """The W&B run of the preprocessing, which is always closed at the end."""
    log = Log(mode, folder, settings)
    try:
        yield log
    finally:
        log.finish({})


def show_summary(folder: Path, counts: dict[str, Any], fingerprint: str, happened: list[tuple[str, str]]) -> None:
    """Print the summary table."""
    table = Table(title=f"token corpus {folder}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in [*count_rows(counts), *happened, ("fingerprint", fingerprint[:16])]:
        table.add_row(name, value)
    Console(width=None if sys.stdout.isatty() else 100).print(table)
