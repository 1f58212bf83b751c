"""Where the numbers go: metrics.jsonl, run.json, curves.png, the console and W&B. In: a record per step. Rank 0 only.

    RUN/metrics.jsonl  a line per step, in order, none missing, none doubled: what a resumed run has to redo is cut off
    RUN/run.json       where the run stands, readable at any time
    RUN/curves.png     loss, validation and learning rate
    RUN/wandb/         kogpt.tracking.wandb_run

metrics.jsonl is the truth; W&B is filled up from it after a crash.
"""

import contextlib
import io
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kogpt.checkpoint.layout import point
from kogpt.checkpoint.prune import prune
from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.tracking.wandb_run import WandbRun

log = logging.getLogger(__name__)

RUN_JSON_SECONDS = 10.0
CURVES_SECONDS = 60.0
PLAIN_LINE_SECONDS = 15.0
LAST = "last_checkpoint"


class MetricsFile:
    """metrics.jsonl, opened to go on behind step `last`: later lines are cut off, earlier ones must all be there.

    `source` is where the earlier lines are: the same file, or that of the run whose checkpoint is gone on from.
    On a full disk lines wait in memory; `sync` raises as long as they do.
    """

    def __init__(self, path: Path, last: int, source: Path) -> None:
        kept = list(_lines_through(source, last))
        if [step for step, _ in kept] != list(range(1, last + 1)):
            raise UserError(
                f"{source} does not hold the steps 1 to {last} that the checkpoint has behind it; "
                "put the file back, or train into another --out."
            )
        with atomic_write(path) as file:
            file.writelines(line for _, line in kept)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        self._waiting = b""

    def append(self, record: dict[str, Any]) -> None:
        """Add a line; a kill leaves at most a last line without its end."""
        self._waiting += json.dumps(finite(record), ensure_ascii=False).encode() + b"\n"
        with contextlib.suppress(OSError):
            self._write()

    def sync(self) -> None:
        """Have all lines on disk, before a checkpoint that counts on them."""
        self._write()
        os.fsync(self._file.fileno())

    def _write(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]


def _lines_through(path: Path, last: int) -> Iterator[tuple[int, bytes]]:
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                step = json.loads(line)["step"]
            except ValueError:  # cut off by a kill
                return
            if step > last or not line.endswith(b"\n"):
                return
            yield step, line


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, without a last line that is still being written."""
    records = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def finite(value: Any) -> Any:
    """JSON knows no nan and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Progress:
    """The console's line: step, loss, rate, what is left. Where there is no terminal, a plain line now and then."""

    def __init__(self, step: int, steps: int) -> None:
        self._terminal = sys.stderr.isatty()
        self._printed = time.monotonic()
        self.bar = tqdm(
            total=steps,
            initial=step,
            unit="step",
            dynamic_ncols=self._terminal,
            mininterval=0.5,
            smoothing=0.05,
            file=sys.stderr if self._terminal else io.StringIO(),
        )

    def show(self, record: dict[str, Any]) -> None:
        """Advance by the step of `record`."""
        shown = {
            "loss": f"{record['loss']:.4f}",
            "lr": f"{record['lr']:.2e}",
            "norm": f"{record['grad_norm']:.2f}",
            "tok/s": f"{record['tokens_per_s']:,.0f}",
            "char/s": f"{record['chars_per_s']:,.0f}",
            "mfu": "unknown" if record["mfu"] is None else f"{record['mfu']:.1%}",
            "wait": f"{record['data_wait']:.1%}",
            "GiB": f"{max(value for key, value in record.items() if key.startswith('memory_gib_rank')):.1f}",
            "epoch": f"{record['epoch']:.2f}",
        }
        if record["skipped_steps"]:
            shown["skipped"] = str(record["skipped_steps"])
        if record["loss_scale"] != 1.0:
            shown["scale"] = f"{record['loss_scale']:.0f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(record["step"] - self.bar.n)
        if not self._terminal and time.monotonic() - self._printed > PLAIN_LINE_SECONDS:
            self._print_bar()

    @property
    def seconds_left(self) -> float:
        """At the pace of late, or of this start while there is no other."""
        state = self.bar.format_dict
        rate = state["rate"] or (state["n"] - state["initial"]) / max(state["elapsed"], 1e-9)
        return (state["total"] - state["n"]) / max(rate, 1e-9)

    def close(self) -> None:
        """Leave the last state of the bar there."""
        self.bar.close()
        if not self._terminal:
            self._print_bar()

    def _print_bar(self) -> None:
        print(str(self.bar).strip(), file=sys.stderr, flush=True)
        self._printed = time.monotonic()


class RunFile:
    """run.json: rewritten whole at every change that matters, and every few seconds."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content, self._written = path, dict(content), -math.inf

    def update(self, *, now: bool, **changes: Any) -> None:
        """Change fields; on disk `now`, or when the last time is a while ago."""
        self.content |= changes
        if now or time.monotonic() - self._written > RUN_JSON_SECONDS:
            with atomic_write(self.path) as file:
                file.write(json.dumps(finite(self.content), indent=1, ensure_ascii=False).encode() + b"\n")
            self._written = time.monotonic()


def draw_curves(path: Path, records: list[dict[str, Any]]) -> None:
    """Loss over steps with the validation loss, bits per character, learning rate and gradient norm, as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    steps = [record["step"] for record in records]
    evaluated = [record for record in records if record.get("val_loss") is not None]
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7))
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.08, top=0.94, hspace=0.28, wspace=0.18)
    (loss, bits), (rate, norm) = axes
    loss.plot(steps, [_number(record["loss"]) for record in records], linewidth=0.8, label="training")
    loss.plot([r["step"] for r in evaluated], [r["val_loss"] for r in evaluated], "o-", label="validation")
    loss.set(title="loss (nats per id)")
    loss.legend()
    bits.plot([r["step"] for r in evaluated], [r["val_bits_per_char"] for r in evaluated], "o-", color="tab:orange")
    bits.set(title="validation bits per character")
    rate.plot(steps, [record["lr"] for record in records], color="tab:green")
    rate.set(title="learning rate", xlabel="step")
    norm.plot(steps, [_number(record["grad_norm"]) for record in records], linewidth=0.8, color="tab:red")
    norm.set(title="gradient norm before clipping", xlabel="step")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
    pyplot.close(figure)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


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
        self._write_state(now=True)
        if wandb is not None:
            wandb.catch_up(read_metrics(run / "metrics.jsonl"))

    def log(self, record: dict[str, Any], next_evaluation: int) -> None:
        """A step is done."""
        self.metrics.append(record)
        self.progress.show(record)
        last = {key: record[key] for key in ("step", "loss", "lr", "epoch", "tokens", "tokens_per_s", "skipped_steps")}
        last["mfu"] = "unknown" if record["mfu"] is None else record["mfu"]
        self._write_state(now=False, **last, eta_seconds=self.progress.seconds_left, next_evaluation=next_evaluation)
        if self.wandb is not None:
            self.wandb.log(record)

    def evaluated(self, record: dict[str, Any]) -> None:
        """A step with an evaluation is logged: show it, and how the prompts went on."""
        keys = ("step", "val_loss", "val_bits_per_char")
        if record["val_loss"] is not None:
            log.info(
                f"step {record['step']}: validation loss {record['val_loss']:.4f}, "
                f"{record['val_bits_per_char']:.4f} bits per character"
            )
        for prompt, continuation in record.get("continuations", []):
            log.info(f"    {prompt}|{continuation}".replace("\n", "\\n"))
        self._write_state(now=True, last_evaluation={key: record[key] for key in keys})
        self._draw(now=False)

    def sync(self) -> OSError | None:
        """Before a checkpoint: have the metrics on disk; the error of a full one."""
        try:
            self.metrics.sync()
        except OSError as error:
            return error
        return None

    def saved(self, folder: Path, best: bool, keep: int) -> None:
        """A checkpoint is on disk: point to it, and remove the ones that are no longer wanted."""
        with self._disk_may_be_full():
            if best:
                point(folder, "best")
            prune(self.run, keep)
        self._write_state(now=True, **{LAST: str(folder)})
        self._draw(now=False)

    def finish(self, state: str) -> None:
        """The run ends, for whatever reason."""
        self.progress.close()
        self._write_state(now=True, state=state, eta_seconds=None)
        self._draw(now=True)
        if self.wandb is not None:
            fields = ("step", "loss", "tokens", "tokens_per_s", "mfu", "skipped_steps", "last_evaluation", LAST)
            if self.artifact and state == "finished" and LAST in self.file.content:
                self.wandb.artifact(Path(self.file.content[LAST]))
            self.wandb.finish(state, {key: self.file.content[key] for key in fields if key in self.file.content})

    def _write_state(self, *, now: bool, **changes: Any) -> None:
        with self._disk_may_be_full():
            self.file.update(now=now, **changes)

    def _draw(self, *, now: bool) -> None:
        """Bring curves.png up to date, unless it was just drawn."""
        step = self.file.content["step"]
        if step > self._drawn_step and (now or time.monotonic() - self._drawn > CURVES_SECONDS):
            with self._disk_may_be_full():
                draw_curves(self.run / "curves.png", read_metrics(self.run / "metrics.jsonl"))
            self._drawn, self._drawn_step = time.monotonic(), step

    @contextlib.contextmanager
    def _disk_may_be_full(self) -> Iterator[None]:
        """What is written beside checkpoints must not end a training."""
        try:
            yield
        except OSError as error:
            log.warning(f"cannot write in {self.run}: {error}.")
