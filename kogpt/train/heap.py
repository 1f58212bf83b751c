"""Return freed memory to the system before it piles up. In: the memory of the process after each step.

On a CPU, torch's tensors are in the heap of the C library. One rank allocates and frees the same sizes in the same
order in every step, so its heap soon stays as it is. With several ranks, whose sums are made by gloo's threads, the
heap is cut into other pieces in every step. Fewer of them fit the next one, and it grows to several times of what a
step uses (bench/LOG.md).
"""

import math

from kogpt.common import system

GROWTH = 1.1
"""The heap may grow by a tenth. Returning it takes some percent of a step, for all pages are then faulted in again."""


class Heap:
    """The heap of this process, which trains on a CPU."""

    def __init__(self) -> None:
        self.least = math.inf
        """The memory after the smallest step since the heap was returned."""

    def watch(self, resident: float) -> None:
        """Return what is free if `resident`, the memory of the process after this step, has grown."""
        self.least = min(self.least, resident)
        if resident > GROWTH * self.least:
            system.return_memory()
            self.least = math.inf
