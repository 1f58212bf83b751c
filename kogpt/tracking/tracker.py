"""All that is recorded of a training, behind one call per step. In: records. Out: files, console, W&B. Rank 0 only.

    RUN/metrics.jsonl  a line per step                  (kogpt.tracking.metrics_file)
    RUN/run.json       where the run stands             (kogpt.tracking.run_file)
    RUN/curves.png     loss, validation, learning rate  (kogpt.tracking.curves)
    RUN/wandb/         the W&B run                      (kogpt.tracking.wandb_run)
    log and W&B        divergence, stall, end           (kogpt.tracking.alerts)

Only metrics.jsonl must be whole before a checkpoint counts on it; a full disk for the others is a warning.

A thread writes the files, in the order of the calls. A disk may pause for longer than the time-out of a collective, and
all ranks wait for rank 0.
"""

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kogpt.eval.report import with_error
from kogpt.tracking.alerts import Alerts
from kogpt.tracking.curves import draw_curves
from kogpt.tracking.metrics_file import MetricsFile, read_metrics
from kogpt.tracking.progress import Progress
from kogpt.tracking.run_file import RunFile
from kogpt.tracking.wandb_run import WandbRun

log = logging.getLogger(__name__)

CURVES_SECONDS = 60.0
LAST = "last_checkpoint"


class Tracker:
    """All of it together, behind one call per step."""

    def __init__(
        self,
        run: Path,
        *,
        step: int,
        steps: int,
        about: dict[str, Any],
        wandb: WandbRun | None,
        source: Path,
        artifact: bool,
    ) -> None:
        self.run, self.wandb, self.artifact = run, wandb, artifact
        self.metrics = MetricsFile(run / "metrics.jsonl", step, source)
        self.progress = Progress(step, steps)
        self.file = RunFile(run / "run.json", {"state": "running", "step": step, "steps": steps, **about})
        self._drawn, self._drawn_step = -math.inf, 0
        self._thread = ThreadPoolExecutor(1, "tracker")
        self._later(self.file.update, now=True)
        past = read_metrics(run / "metrics.jsonl") if step else []
        if wandb is not None:
            wandb.catch_up(past)
        self.alerts = Alerts(wandb.alert if wandb is not None else None, past)

    def log(self, record: dict[str, Any], next_evaluation: int) -> None:
        """A step is done."""
        self._later(self.metrics.append, record=record)
        self.progress.show(record)
        last = {key: record[key] for key in ("step", "loss", "lr", "epoch", "tokens", "tokens_per_s", "skipped_steps")}
        last["mfu"] = "unknown" if record["mfu"] is None else record["mfu"]
        last |= {"eta_seconds": self.progress.seconds_left, "next_evaluation": next_evaluation}
        self._later(self.file.update, now=False, **last)
        if self.wandb is not None:
            self.wandb.log(record)
        self.alerts.step(record)

    def evaluated(self, record: dict[str, Any]) -> None:
        """A step with an evaluation is logged: show it, and how the prompts went on."""
        keys = ("step", "val_loss", "val_bits_per_char")
        if record["val_loss"] is not None:
            log.info(
                f"step {record['step']}: validation loss {record['val_loss']:.4f}, "
                f"{record['val_bits_per_char']:.4f} bits per character"
            )
        if "above_chance" in record:
            score = with_error(record["above_chance"], record["above_chance_standard_error"], 3)
            log.info(f"step {record['step']}: multiple choice {score} above chance")
        for prompt, continuation in record.get("continuations", []):
            log.info(f"    {prompt}|{continuation}".replace("\n", "\\n"))
        self._later(self.file.update, now=True, last_evaluation={key: record[key] for key in keys})
        self._later(self._draw, now=False)

    def saved(self, folder: Path) -> None:
        """A checkpoint is on disk."""
        self._later(self.file.update, now=True, **{LAST: str(folder)})
        self._later(self._draw, now=False)

    def sync(self) -> None:
        """Wait until metrics.jsonl is on disk with all steps so far. From any thread. Raises `OSError`."""
        self._thread.submit(self.metrics.sync).result()

    def finish(self, state: str) -> None:
        """The run ends, for whatever reason."""
        self.progress.close()
        self._later(self.file.update, now=True, state=state, eta_seconds=None)
        self._later(self._draw, now=True).result()
        about = self.file.content
        bits = about.get("last_evaluation", {}).get("val_bits_per_char")
        known = "" if bits is None else f", {bits:.4f} bits per character"
        self.alerts.finish(state, f"{self.run.name}: {state} at step {about['step']} of {about['steps']}{known}.")
        if self.wandb is not None:
            fields = ("step", "loss", "tokens", "tokens_per_s", "mfu", "skipped_steps", "last_evaluation", LAST)
            if self.artifact and state == "finished" and LAST in self.file.content:
                self.wandb.artifact(Path(self.file.content[LAST]))
            self.wandb.finish(state, {key: self.file.content[key] for key in fields if key in self.file.content})

    def _draw(self, *, now: bool) -> None:
        """Bring curves.png up to date, unless it was just drawn."""
        step = self.file.content["step"]
        if step > self._drawn_step and (now or time.monotonic() - self._drawn > CURVES_SECONDS):
            self._drawn, self._drawn_step = time.monotonic(), step
            draw_curves(self.run / "curves.png", read_metrics(self.run / "metrics.jsonl"))

    def _later(self, write: Callable[..., None], **arguments: Any) -> Future[None]:
        """Have the thread write. It reports a full disk, or any other error, instead of ending the training."""

        def attempt() -> None:
            try:
                write(**arguments)
            except OSError as error:
                log.warning(f"Cannot write to {self.run}: {error}.")
            except Exception:
                log.exception(f"Cannot write to {self.run}.")

        return self._thread.submit(attempt)
