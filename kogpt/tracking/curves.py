"""curves.png: loss, validation, learning rate, and gradient norm over the steps. In: records of metrics.jsonl."""

import math
from pathlib import Path
from typing import Any

from kogpt.common.files import atomic_write


def draw_curves(path: Path, records: list[dict[str, Any]]) -> None:
    """Draw training and validation loss, bits per character, learning rate, and gradient norm over the steps."""
    from matplotlib.figure import Figure  # without pyplot, which belongs to the main thread

    steps = [record["step"] for record in records]
    evaluated = [record for record in records if record.get("val_loss") is not None]
    figure = Figure(figsize=(11, 7))
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.08, top=0.94, hspace=0.28, wspace=0.18)
    axes = figure.subplots(2, 2)
    (loss, bits), (rate, norm) = axes
    loss.plot(steps, [_number(record["loss"]) for record in records], linewidth=0.8, label="training")
    loss.plot([r["step"] for r in evaluated], [r["val_loss"] for r in evaluated], "o-", label="validation")
    loss.set(title="loss (nats per token)")
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


def _number(value: float | None) -> float:
    return math.nan if value is None else value
