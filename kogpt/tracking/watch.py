"""`kogpt.watch`: shows a training while it runs, from another process. In: a run folder. Out: a picture, or a bar.

It reads metrics.jsonl and run.json, and looks for the training among the processes of this machine: from the moment it
is started with this --out, long before it writes anything, until it ends in any way. Reading and drawing take at most a
twentieth of the time, however long the run is.
"""

import base64
import io
import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from kogpt.common.errors import UserError
from kogpt.common.files import LOCK
from kogpt.common.progress import ProgressBar
from kogpt.tracking.metrics_file import read_metrics
from kogpt.tracking.run_file import read_run_file

LOOK_SECONDS = 1.0
SHARE = 0.05
"""The largest share of the time that reading and drawing may take."""
START_SECONDS = 5.0
"""A shell takes a moment to start the training that it was told to start."""
SILENT_SECONDS = 120.0
"""A training on another machine that writes nothing for this long is taken for dead."""
PROGRAMS = {"train.py", "demo_ranks.py"}


class View(Protocol):
    """What shows the records of metrics.jsonl to a person."""

    def show(self, records: list[dict[str, Any]], steps: int) -> None: ...

    def close(self) -> None: ...


def watch(run: str | Path) -> None:
    """See `kogpt.watch`."""
    run = Path(run)
    view: View = Picture() if _in_notebook() else Bar()
    began, here, read_at = time.monotonic(), False, 0
    records: list[dict[str, Any]] = []
    going = True
    try:
        while going:
            now_here = trains_here(run)
            here |= now_here
            elsewhere = not here and (_writes(run) or time.monotonic() - began < START_SECONDS)
            going = now_here or elsewhere
            looked = time.monotonic()
            if (changed := _changed(run)) != read_at and (steps := read_run_file(run).get("steps")) is not None:
                read_at, records = changed, read_metrics(run / "metrics.jsonl")
                if records:
                    view.show(records, steps)
            if going:
                time.sleep(max(LOOK_SECONDS, (time.monotonic() - looked) / SHARE))
    finally:
        view.close()
    print(_end(run, records))


def trains_here(run: Path) -> bool:
    """Whether a training of this machine has this --out in its command line, or holds the lock of the run folder."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(Path(word).name in PROGRAMS for word in words):
            with suppress(psutil.Error, OSError):  # it has just ended, or is somebody else's
                if (out := _out(words)) and (Path(process.cwd()) / out).resolve() == run.resolve():
                    return True
                if any(Path(file.path) == run.resolve() / LOCK for file in process.open_files()):
                    return True
    return False


def _out(words: list[str]) -> str | None:
    """The value of --out in a command line."""
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == "--out":
            return following
        if word.startswith("--out="):
            return word.removeprefix("--out=")
    return None


def _writes(run: Path) -> bool:
    """Whether a training, perhaps on another machine, says that it is running, and has written not long ago."""
    return read_run_file(run).get("state") == "running" and time.time_ns() - _changed(run) < SILENT_SECONDS * 1e9


def _changed(run: Path) -> int:
    """When metrics.jsonl was last changed, in nanoseconds; 0 if there is none."""
    with suppress(OSError):
        return (run / "metrics.jsonl").stat().st_mtime_ns
    return 0


def _end(run: Path, records: list[dict[str, Any]]) -> str:
    """How the training ended, in a sentence or two."""
    if not records:
        raise UserError(
            f"no training with --out {run} is running here, and none has recorded a step; start one, or read what it "
            "printed. If yours has no --out in its command line, call this again after its first step."
        )
    about, step = read_run_file(run), records[-1]["step"]
    best = min((r for r in records if r["val_loss"] is not None), key=lambda r: r["val_loss"], default=None)
    value = f" The best of step {best['step']:,}: {best['val_bits_per_char']:.2f} bits per character." if best else ""
    if about["state"] == "finished":
        return f"Finished after {step:,} steps.{value}"
    ended = "Failed" if about["state"] == "failed" else "Stopped"
    return f"{ended} after step {step:,} of {about['steps']:,}.{value} The same command continues from there."


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which can show pictures."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython(), "kernel") if ipython is not None else False


class Bar:
    """A progress bar."""

    def __init__(self) -> None:
        self._bar: ProgressBar | None = None
        self._steps = 0

    def show(self, records: list[dict[str, Any]], steps: int) -> None:
        """Advance to the last record."""
        if self._bar is None or steps != self._steps:
            self.close()
            self._bar, self._steps = ProgressBar(steps, "step", done=records[-1]["step"]), steps
        losses = [f"{name} {value:.4f}" for name, value in _last_losses(records).items()]
        self._bar.advance(records[-1]["step"] - self._bar.done, ", ".join(losses))

    def close(self) -> None:
        """Leave the last state visible."""
        if self._bar is not None:
            self._bar.close()


class Picture:
    """The curves of the loss, drawn again in the same place of a notebook."""

    def __init__(self) -> None:
        from IPython.display import display

        self._handle = display({"text/plain": "The training is starting ..."}, raw=True, display_id=True)

    def show(self, records: list[dict[str, Any]], steps: int) -> None:
        """Draw all records."""
        content = base64.b64encode(draw(records, steps)).decode()
        self._handle.update({"image/png": content, "text/plain": _title(records, steps)}, raw=True)

    def close(self) -> None:
        """The last picture stays."""


def draw(records: list[dict[str, Any]], steps: int) -> bytes:
    """The losses, and bits per character, of a run that has `steps` steps in the end; a PNG."""
    from matplotlib.figure import Figure  # no pyplot, whose backend is the notebook's own

    evaluated = [record for record in records if record["val_loss"] is not None]
    at = [record["step"] for record in evaluated]
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    loss, bits = figure.subplots(1, 2)
    losses = [math.nan if record["loss"] is None else record["loss"] for record in records]
    loss.plot([record["step"] for record in records], losses, linewidth=0.8, label="training")
    loss.plot(at, [record["val_loss"] for record in evaluated], "o-", label="validation")
    loss.set(title="loss (nats per token)", xlabel="step", xlim=(0, steps))
    loss.legend()
    bits.plot(at, [record["val_bits_per_char"] for record in evaluated], "o-", color="tab:orange")
    bits.set(title="validation bits per character", xlabel="step", xlim=(0, steps))
    for axis in (loss, bits):
        axis.grid(alpha=0.3)
    figure.suptitle(_title(records, steps))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=90)
    return content.getvalue()


def _title(records: list[dict[str, Any]], steps: int) -> str:
    last = records[-1]
    left = (steps - last["step"]) * sum(record["step_s"] for record in records[-20:]) / len(records[-20:])
    remaining = f", {left / 60:.0f} min left" if left >= 60 else f", {left:.0f} s left" if left else ""
    return f"step {last['step']:,} of {steps:,}, {last['tokens_per_s']:,.0f} tokens/s{remaining}"


def _last_losses(records: list[dict[str, Any]]) -> dict[str, float]:
    """The last finite training loss, and the last validation's bits per character, as far as there are any."""
    keys = {"loss": "loss", "validation bits per character": "val_bits_per_char"}
    found = {name: next((r[key] for r in reversed(records) if r[key] is not None), None) for name, key in keys.items()}
    return {name: value for name, value in found.items() if value is not None}
