"""Tells a person that a training diverges, stalls, or has ended: in the log, and as alerts of W&B (e-mail, Slack).

In: a record per step, and the end. Out: calls of `tell` with a title, a sentence, and a level.

A training diverges if its mean loss over `WINDOW` steps is `RISE` nats above the lowest such mean so far, or if a loss
is not finite. It stalls if no step ends for ten minutes, or for three times as long as the longest wait so far,
evaluations included; a thread watches that. Each is reported once, and again if it returns after the training has
recovered.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

log = logging.getLogger(__name__)

Level = Literal["INFO", "WARN", "ERROR"]
Tell = Callable[[str, str, Level], None]
WINDOW, RISE = 20, 0.5
STALL_SECONDS, LOOK_SECONDS = 600.0, 10.0
_LEVELS: dict[str, Level] = {"finished": "INFO", "stopped": "WARN"}


class Alerts:
    """Watches one training, from its start to `finish`."""

    def __init__(self, tell: Tell | None, past: Sequence[dict[str, Any]] = ()) -> None:
        """`past`: the records of the steps before a resume, of which nothing is told."""
        self._tell = tell or (lambda *_: None)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._lowest = math.inf
        for record in past:
            if record["loss"] is not None and math.isfinite(record["loss"]):
                self._mean_with(record["loss"])
        self._diverging = self._stalled = False
        self._step, self._longest, self._at = past[-1]["step"] if past else 0, 0.0, time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="stall", daemon=True).start()

    def step(self, record: dict[str, Any]) -> None:
        """A step is done, with the evaluation after it."""
        now = time.monotonic()
        self._longest, self._at = max(self._longest, now - self._at), now
        self._step, self._stalled = record["step"], False
        loss = math.nan if record["loss"] is None else record["loss"]
        if not math.isfinite(loss):
            self._diverges(f"the loss of step {self._step} is not finite")
            return
        mean = self._mean_with(loss)
        if mean is None:
            return
        if mean > self._lowest + RISE:
            self._diverges(f"the loss rose from {self._lowest:.3f} to {mean:.3f} at step {self._step}")
        elif mean < self._lowest + RISE / 2:
            self._diverging = False

    def _mean_with(self, loss: float) -> float | None:
        """The mean of the last losses and this one, once there are enough. It may be the lowest."""
        self._losses.append(loss)
        if len(self._losses) < WINDOW:
            return None
        mean = sum(self._losses) / WINDOW
        self._lowest = min(self._lowest, mean)
        return mean

    def finish(self, state: str, text: str) -> None:
        """The training ended."""
        self._ended.set()
        self._tell(f"training {state}", text, _LEVELS.get(state, "ERROR"))

    def _diverges(self, reason: str) -> None:
        if not self._diverging:
            self._diverging = True
            self._warn("training diverges", f"The training diverges: {reason}. A lower learning rate may help.")

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            silent = time.monotonic() - self._at
            if silent > max(STALL_SECONDS, 3 * self._longest) and not self._stalled:
                self._stalled = True
                minutes = f"{silent / 60:.0f} minutes"
                self._warn(
                    "training stalls", f"The training stalls: step {self._step} ended {minutes} ago, and no other."
                )

    def _warn(self, title: str, text: str) -> None:
        log.warning(text)
        self._tell(title, text, "WARN")
