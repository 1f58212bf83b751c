"""Progress on stderr: a bar on a terminal, elsewhere (a log file, a notebook's output) a plain line now and then."""

import io
import sys
import time

from tqdm import tqdm

PLAIN_LINE_SECONDS = 15.0


class _Nowhere(io.TextIOBase):
    """A file that keeps nothing of what is written to it."""

    def write(self, text: str) -> int:
        return len(text)


class ProgressBar:
    """How far a job is: `done` of `total` units, the rate, the remaining time, and whatever else is to be shown."""

    def __init__(self, total: int | None, unit: str, *, done: int = 0, title: str | None = None) -> None:
        self._terminal = sys.stderr.isatty()
        self._printed = time.monotonic()
        self._bar = tqdm(
            desc=title,
            total=total,
            initial=done,
            unit=unit,
            dynamic_ncols=self._terminal,
            mininterval=0.5,
            smoothing=0.05,
            file=sys.stderr if self._terminal else _Nowhere(),
        )

    @property
    def done(self) -> int:
        """Units that are done, those of earlier starts included."""
        return int(self._bar.n)

    def advance(self, units: int, shown: str = "") -> None:
        """That many more units are done; `shown` stands behind the rate from now on."""
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(units)
        if not self._terminal and time.monotonic() - self._printed > PLAIN_LINE_SECONDS:
            self._print()

    def of(self, total: int | None, before: int) -> None:
        """There are this many units in all, of which `before` were done by an earlier start."""
        more = before - self._bar.initial
        self._bar.total = total
        self._bar.n += more
        self._bar.last_print_n += more  # else they would count as done since then, and be part of the pace
        self._bar.initial = before

    @property
    def seconds_left(self) -> float:
        """Remaining time at the recent pace, or at the average pace of this start if there is none yet."""
        state = self._bar.format_dict
        rate = state["rate"] or (state["n"] - state["initial"]) / max(state["elapsed"], 1e-9)
        return (state["total"] - state["n"]) / max(rate, 1e-9)

    def close(self) -> None:
        """End the bar, and leave its last state visible."""
        self._bar.close()
        if not self._terminal:
            self._print()

    def _print(self) -> None:
        print(str(self._bar).strip(), file=sys.stderr, flush=True)
        self._printed = time.monotonic()
