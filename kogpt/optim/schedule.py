"""The learning rate as a function of the step: numbers in, a number out, nothing remembered.

Steps count from 0, the first update; `total_steps` is the number of updates. Warm-up is linear and never
0 (the first update already learns): step s < warmup_steps gets peak * (s + 1) / warmup_steps. Then

- cosine: half a cosine from `peak` down to `peak * final_ratio`, reached by the last update
  (Loshchilov & Hutter 2017, section 3, one cycle);
- wsd (warm-up, stable, decay): `peak` until `decay_steps` are left, then linearly down to
  `peak * final_ratio` by the last update (Hu et al. 2024, MiniCPM, section 4). A run can be lengthened
  without having spent its learning rate: what comes before the decay does not depend on `total_steps`.

Steps past the end keep the final rate. No state but the step and the numbers that the run began with.
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
    """The rate of update `step`. `decay_steps` is for "wsd" alone (the cosine decays all the way)."""
    if step < warmup_steps:
        return peak * ((step + 1) / warmup_steps)
    if schedule == "cosine":
        decay_steps = total_steps - warmup_steps
    if decay_steps <= 0:
        return peak
    # The share of the decay that is done: 0 just before its first update, 1 at the last update.
    done = min(max((step + 1 - (total_steps - decay_steps)) / decay_steps, 0.0), 1.0)
    left = 0.5 * (1.0 + math.cos(math.pi * done)) if schedule == "cosine" else 1.0 - done
    return peak * (final_ratio + (1.0 - final_ratio) * left)


def warmup_length(share: float, total_steps: int, begun: int | None = None) -> int:
    """Steps of warm-up; `begun` is the number that the run began with.

    A run that is lengthened must not go back into its warm-up, one that is shortened must come out of it.
    """
    steps = round(share * total_steps)
    return steps if begun is None else min(begun, steps)
