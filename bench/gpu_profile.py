"""What torch's profiler saw of some training steps. In: a call that makes steps. Out: a `StepProfile`.

Only what begins within these steps counts, because the profiler itself waits for the device at its end. Kernels of
several streams overlap, so the device is busy while at least one of them runs. The profiler lists a kernel twice, as an
event of the device and as time of the call that launched it; it lists the annotation of a region as an event of the
device, too. Source: torch/autograd/profiler_util.py, `_build_table`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

WAITS = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"}
WAITS |= {"cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize"}
"""The calls with which a host waits for a GPU."""
MARK = "measured steps"


@dataclass(frozen=True)
class StepProfile:
    """Of one step, on average."""

    seconds: float
    busy: float
    """The share of the time in which the device works."""
    launches: float
    waits: float
    """Times that the host waits for the device."""
    reads: float
    """Numbers read from tensors, each a wait if the tensor is on the device."""


def profiled(steps: Callable[[int], Any], count: int) -> StepProfile:
    """Profile `steps(count)`, after one step that is not counted: the profiler slows the first launches."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with torch.profiler.profile(activities=activities) as found:
        steps(1)
        with torch.profiler.record_function(MARK):
            steps(count)
    return read(found.events(), count)


def read(events: Iterable[Any], count: int) -> StepProfile:
    """The profile of `count` steps from the profiler's events, in which the steps are marked."""
    events = list(events)
    mark = next(event for event in events if event.name == MARK and event.device_type == DeviceType.CPU).time_range
    inside = [event for event in events if mark.start <= event.time_range.start < mark.end]
    calls = [event.name for event in inside if event.device_type == DeviceType.CPU]
    work = [event for event in inside if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    busy, reached = 0.0, mark.start
    for start, end in sorted((event.time_range.start, min(event.time_range.end, mark.end)) for event in work):
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return StepProfile(
        seconds=(mark.end - mark.start) / 1e6 / count,
        busy=busy / (mark.end - mark.start),
        launches=sum("LaunchKernel" in name for name in calls) / count,
        waits=sum(name in WAITS for name in calls) / count,
        reads=calls.count("aten::_local_scalar_dense") / count,
    )
