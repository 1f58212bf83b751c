"""Training progress on stderr. In: a record per step. Out: a bar on a terminal, elsewhere a line every 15 s."""

import io
import sys
import time
from typing import Any

from tqdm import tqdm

PLAIN_LINE_SECONDS = 15.0


class Progress:
    """Shows step, loss, throughput, and remaining time."""

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
        """Remaining time at the recent pace, or at the average pace of this start if there is none yet."""
        state = self.bar.format_dict
        rate = state["rate"] or (state["n"] - state["initial"]) / max(state["elapsed"], 1e-9)
        return (state["total"] - state["n"]) / max(rate, 1e-9)

    def close(self) -> None:
        """End the bar, and leave its last state visible."""
        self.bar.close()
        if not self._terminal:
            self._print_bar()

    def _print_bar(self) -> None:
        print(str(self.bar).strip(), file=sys.stderr, flush=True)
        self._printed = time.monotonic()
