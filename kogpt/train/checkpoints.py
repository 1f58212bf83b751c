"""The checkpoints of a training: the best, and what became of each. In: the state of a step. Out: step folders.

`saver.py` writes them. This file remembers which are under way and which is the best, and reports each to the log, the
tracker, and the user.
"""

import logging
from pathlib import Path
from typing import Any

from kogpt.checkpoint.layout import FORMAT, VERSION
from kogpt.tracking.tracker import Tracker
from kogpt.train.distributed import Ranks, broadcast_object
from kogpt.train.run_folder import agree_on_token, is_shared
from kogpt.train.saver import Order, Part, Saver
from kogpt.train.step_metrics import is_better

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training. All ranks must call every method.

    `best` is the saved step with the lowest validation loss, {"step", "val_loss"}. `unsaved` says why the last
    checkpoint could not be saved. Only rank 0 keeps them up to date.
    """

    def __init__(
        self, run: Path, keep: int, ranks: Ranks, tracker: Tracker | None, best: dict[str, Any] | None
    ) -> None:
        token = agree_on_token()
        self.saver = Saver(run, ranks, token, is_shared(run, ranks, token))
        self.keep, self.tracker, self.best = keep, tracker, best
        self.unsaved: str | None = None

    def start(self, identity: dict[str, Any], state: dict[str, Any], val_loss: float | None, parts: list[Part]) -> None:
        """Start a checkpoint. `identity` is what a resumed run must share, `state` where it continues.

        `val_loss` is the validation loss of this step, if there is one. `parts` may change as soon as this returns.
        """
        self.saver.await_last()
        self.hear()
        step = state["step"]
        better = is_better(val_loss, self.best["val_loss"] if self.best is not None else None)
        order = Order(
            step=step,
            config={"format": FORMAT, "version": VERSION, **identity, "step": step},
            state=state | {"best": {"step": step, "val_loss": val_loss} if better else self.best},
            better=better,
            keep=self.keep,
            before=self.tracker.sync if self.tracker is not None else None,
        )
        self.saver.start(order, parts)

    def hear(self) -> None:
        """Report finished and failed checkpoints (on rank 0). Training continues without them, with a warning."""
        for order, folder, error in self.saver.outcomes():
            self.unsaved = error
            if error is not None:
                log.warning(f"CHECKPOINT NOT SAVED at step {order.step}: {error}; free disk space.")
                continue
            self.best = order.state["best"]
            if self.tracker is not None:
                self.tracker.saved(folder)

    def wait(self) -> None:
        """Wait until the checkpoint that was started is on disk or has failed."""
        self.saver.wait()

    def end(self) -> str | None:
        """Wait for the last checkpoint. Returns why it could not be saved, on all ranks, or None."""
        self.wait()
        self.hear()
        return broadcast_object(self.unsaved)
