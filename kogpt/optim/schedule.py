"""The learning rate of a step, as a pure function. In: numbers. Out: a number.

Steps count from 0, the first update. `total_steps` is the number of updates. Warm-up is linear and never 0: a step
s < warmup_steps gets peak * (s + 1) / warmup_steps. After the warm-up:

- cosine: half a cosine from `peak` to `peak * final_ratio`, which the last update reaches (Loshchilov & Hutter 2017,
  section 3, one cycle).
- wsd (warm-up, stable, decay): `peak` until `decay_steps` are left, then a linear decay to `peak * final_ratio`, which
  the last update reaches (Hu et al. 2024, MiniCPM, section 4). The steps before the decay do not depend on
  `total_steps`, so such a run can be extended.

Steps past the end keep the final rate.
"""

import math
from typing import Literal

Schedule = Literal["cosine", "wsd"]


def learning_rate(
    step: int,
    *,
    schedule: Schedule,
    peak: float,
    total_steps: int,
    warmup_steps: int = 0,
    decay_steps: int = 0,
    final_ratio: float = 0.1,
) -> float:
    """The learning rate of update `step`. `decay_steps` is used only by "wsd"."""
    if step < warmup_steps:
        return peak * ((step + 1) / warmup_steps)
    if schedule == "cosine":
        decay_steps = total_steps - warmup_steps
    if decay_steps <= 0:
        return peak
    # Progress of the decay: 0 just before its first update, 1 at the last one.
    done = min(max((step + 1 - (total_steps - decay_steps)) / decay_steps, 0.0), 1.0)
    left = 0.5 * (1.0 + math.cos(math.pi * done)) if schedule == "cosine" else 1.0 - done
    return peak * (final_ratio + (1.0 - final_ratio) * left)


def warmup_length(share: float, total_steps: int, begun: int | None = None) -> int:
    """The number of warm-up steps. `begun` is the number that a resumed run started with.

    An extended run must not re-enter its warm-up, and a shortened run must leave it.
    """
    steps = round(share * total_steps)
    return steps if begun is None else min(begun, steps)
