"""Patch DeepSpeed's ZeRO step to wait for the device once a step, instead of five times and once per micro-batch.

In: the optimizer of an engine. Source: DeepSpeed 0.19.8, runtime/zero/stage_1_and_2.py.

- `step`. Stages 1 and 2 check every gradient for infinities, compute the norm (which would show them as well), check
  whether it is finite, and check again for each parameter group. With the patch, the norm alone decides. It is fetched
  once and then read on the host. Stage 3 and DeepSpeed's bf16 optimizer (stage 1) already work this way.
- `independent_gradient_partition_epilogue`, the end of a backward pass. With "overlap_comm", gradients are summed over
  the ranks on a stream of their own, and the host waits for the device before it uses the sums. With the patch, the
  main stream waits for that stream, and the host goes on to queue the next micro-batch. All memory that the two streams
  share is used in this order: what the main stream reads, the other stream overwrites only after it has waited for the
  main stream, which DeepSpeed lets it do before each bucket. While the host is ahead, there may be a second pair of
  buckets. Stage 3 still waits at this place. Its state may be on the host, and it limits its memory by waiting.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


def wait_once(optimizer: Any) -> None:
    """Patch this instance if it is a ZeRO optimizer of stage 1 or 2 with its state on the device."""
    norm_on_device = getattr(optimizer, "scaled_global_norm", None)
    if norm_on_device is None or optimizer.cpu_offload:
        return

    def norm_on_host(*args: Any, **kwargs: Any) -> Tensor:
        return norm_on_device(*args, **kwargs).cpu()

    optimizer.scaled_global_norm = norm_on_host
    optimizer.check_overflow = lambda *_, **__: None
    if optimizer.overlap_comm:
        _order_streams(optimizer)


def _order_streams(optimizer: Any) -> None:
    """At the end of a backward pass, let the main stream wait for the sums over the ranks, and not the host."""
    from deepspeed.accelerator import get_accelerator

    accelerator, whole = get_accelerator(), optimizer.independent_gradient_partition_epilogue

    def wait_on_device(*_: Any) -> None:
        accelerator.current_stream().wait_stream(optimizer.reduction_stream)

    def epilogue() -> None:
        synchronize, accelerator.synchronize = accelerator.synchronize, wait_on_device
        try:
            whole()
        finally:
            accelerator.synchronize = synchronize

    optimizer.independent_gradient_partition_epilogue = epilogue


@contextmanager
def one_optimizer_for_stages_1_and_2() -> Iterator[None]:
    """While an engine is built, use the common ZeRO optimizer also for bf16 at stage 1 with fp32 gradient sums.

    DeepSpeed would use its `BF16_Optimizer`, which waits three times, sums on every rank what one of them needs, and
    prints a page at the start. With off-loading, DeepSpeed already uses the common one.
    """
    from deepspeed.runtime.engine import BFLOAT16, ZERO_OPTIMIZATION, DeepSpeedEngine

    choose = DeepSpeedEngine._do_optimizer_sanity_check

    def chosen(self: Any, optimizer: Any) -> Any:
        kind = choose(self, optimizer)
        return ZERO_OPTIMIZATION if kind == BFLOAT16 else kind

    DeepSpeedEngine._do_optimizer_sanity_check = chosen
    try:
        yield
    finally:
        DeepSpeedEngine._do_optimizer_sanity_check = choose
