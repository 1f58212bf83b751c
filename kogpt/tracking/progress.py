"""What the progress bar of a training shows. In: a record per step. Out: kogpt.common.progress."""

from typing import Any

from kogpt.common.progress import ProgressBar


class Progress:
    """Shows step, loss, throughput, and remaining time."""

    def __init__(self, step: int, steps: int) -> None:
        self._bar = ProgressBar(steps, "step", done=step)

    def show(self, record: dict[str, Any]) -> None:
        """Advance to the step of `record`."""
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
        self._bar.advance(record["step"] - self._bar.done, ", ".join(f"{key}={value}" for key, value in shown.items()))

    @property
    def seconds_left(self) -> float:
        """Remaining time of the training."""
        return self._bar.seconds_left

    def close(self) -> None:
        """End the bar, and leave its last state visible."""
        self._bar.close()
