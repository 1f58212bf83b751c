"""DeepSpeed's ZeRO step with one wait for the device instead of five. In: an engine's optimizer. Out: nothing new.

Stages 1 and 2 look for infinities in every gradient, then compute the norm (which has them, too), look whether it is
finite, and look again for each group of parameters. Here the norm decides alone, and is fetched once: what comes after
reads it on the host. Stage 3 and DeepSpeed's bf16 optimizer (stage 1) do so already. Read in DeepSpeed 0.19.8,
runtime/zero/stage_1_and_2.py, `step`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


def wait_once(optimizer: Any) -> None:
    """Patch this instance, where it is a ZeRO optimizer of stage 1 or 2 that keeps its state on the device."""
    norm_on_device = getattr(optimizer, "scaled_global_norm", None)
    if norm_on_device is None or optimizer.cpu_offload:
        return

    def norm_on_host(*args: Any, **kwargs: Any) -> Tensor:
        return norm_on_device(*args, **kwargs).cpu()

    optimizer.scaled_global_norm = norm_on_host
    optimizer.check_overflow = lambda *_, **__: None


@contextmanager
def one_optimizer_for_stages_1_and_2() -> Iterator[None]:
    """While an engine is built: bf16 at stage 1 with fp32 sums gets the ZeRO optimizer that all others get.

    DeepSpeed takes its `BF16_Optimizer` there, which waits three times, sums on every rank what one of them needs,
    and prints a page at the start; with off-loading it takes the other one itself.
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
