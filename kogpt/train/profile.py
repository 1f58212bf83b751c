"""--profile FIRST:LAST: where the time of a few steps goes. In: the numbers of the steps. Out: a trace, and a table.

RUN/trace-FIRST-LAST.json shows every operation of rank 0 on the CPU and on its GPU over time, in ui.perfetto.dev or
chrome://tracing. The log gets the ten operations with the most time of their own. Recording (torch.profiler) makes
these steps slower and changes no number. The other ranks wait while rank 0 writes; the training goes on afterwards.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.common.flags import Span
from kogpt.train.distributed import Ranks, patient

log = logging.getLogger(__name__)

COSTLIEST = 10


class Profile:
    """The steps to record of a training of `steps` steps. All ranks have one and call the same methods.

    Raises `UserError` if the training ends before them.
    """

    def __init__(self, span: Span | None, run: Path, ranks: Ranks, steps: int) -> None:
        if span is not None and span.first > steps:
            raise UserError(f"--profile {span} begins after the last step, {steps}; name steps of this training.")
        self.span, self.run, self.ranks = span, run, ranks
        self._recorded: list[int] = []
        self._profiler: profile | None = None

    def begin(self, step: int) -> None:
        """The training goes on after this step. If the steps to record are done, this is said."""
        if self.span is not None and self.span.last <= step:
            log.warning(f"--profile {self.span} records nothing: step {step} is done; name steps after it.")

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """A block that does the step of this number."""
        if self.span is None or not self.span.first <= number <= self.span.last:
            yield
            return
        if not self._recorded and self.ranks.first:
            gpu = [ProfilerActivity.CUDA] if self.ranks.device.type == "cuda" else []
            self._profiler = profile(activities=[ProfilerActivity.CPU, *gpu])
            self._profiler.start()
        self._recorded.append(number)
        yield
        if number == self.span.last:
            self.end()

    def end(self) -> None:
        """Write what was recorded, if that has not been done."""
        if not self._recorded:
            return
        with patient(self.ranks):
            if self._profiler is not None:
                self._write(self._profiler)
        self._recorded, self._profiler = [], None

    def _write(self, profiler: profile) -> None:
        first, last = self._recorded[0], self._recorded[-1]
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)
        profiler.stop()
        path = self.run / f"trace-{first}-{last}.json"
        try:
            with tempfile.TemporaryDirectory(dir=self.run) as folder, atomic_write(path) as file:
                made = Path(folder) / "trace.json"
                profiler.export_chrome_trace(str(made))
                with open(made, "rb") as trace:
                    shutil.copyfileobj(trace, file)
        except OSError as error:
            log.warning(f"The trace of --profile could not be written: {error}.")
        else:
            log.info(f"Steps {first} to {last} are in {path}; open it in ui.perfetto.dev.")
        for line in costliest(profiler, self.ranks.device.type):
            log.info(line)


def costliest(profiler: profile, device: str) -> list[str]:
    """The operations with the most time of their own on the device, as lines of a table."""
    gpu = device == "cuda"
    # Kernels are listed beside the operations that started them, and count there.
    events = [
        e for e in profiler.key_averages() if e.device_type == DeviceType.CPU and not (gpu and e.is_user_annotation)
    ]
    times = {e.key: (e.self_device_time_total if gpu else e.self_cpu_time_total, e.count) for e in events}
    whole = sum(time for time, _ in times.values()) or 1
    chosen = sorted(times.items(), key=lambda item: -item[1][0])[:COSTLIEST]
    rows = [f"  {name[:44]:44} {t / 1000:10,.1f} ms {t / whole:6.1%} {n:8,} calls" for name, (t, n) in chosen]
    return [f"The {COSTLIEST} operations with the most time of their own on the {device}:", *rows]
