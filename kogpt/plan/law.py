"""What bits per character to expect of a training. In: parameters, characters, characters of the corpus. Out: `Bits`.

The law has the form of Hoffmann et al. 2022 ("Chinchilla", section 3.3), in characters, so that it holds for any
vocabulary: E + A / (N / 1e6)^a + B / (C / 1e6)^b, with N parameters and C characters. Characters that are read again
count for less and less (Muennighoff et al. 2023, equation 5): R epochs after the first are worth
R* (1 - exp(-R / R*)), R* = 15.4.

`FITS` are fitted to our runs (bench/law.py, bench/law_runs.jsonl): the first to all of them, each of the others to all
but one. Their spread, and how far the runs lie from the law, is the uncertainty. It grows away from the runs, and does
not know how other text differs: all runs read Korean Wikipedia and some books. Arithmetic only.
"""

import math
from dataclasses import dataclass

REPEATS = 15.4


@dataclass(frozen=True)
class Fit:
    """The coefficients of the law, for millions of parameters and of characters."""

    floor: float
    size: float
    size_exponent: float
    data: float
    data_exponent: float

    def bits(self, parameters: float, chars: float) -> float:
        """Bits per character."""
        by_size = self.size / (parameters / 1e6) ** self.size_exponent
        return self.floor + by_size + self.data / (chars / 1e6) ** self.data_exponent


@dataclass(frozen=True)
class Bits:
    """Bits per character: the most likely number, and two between which it probably lies."""

    expected: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.expected:.2f} [{self.low:.2f}, {self.high:.2f}]"


FITS = (
    Fit(floor=0.0, size=0.2671, size_exponent=1.0, data=4.5201, data_exponent=0.1),
    Fit(floor=1.1519, size=0.2732, size_exponent=1.0, data=3.3801, data_exponent=0.15),
    Fit(floor=0.0, size=0.2725, size_exponent=1.0, data=4.5177, data_exponent=0.1),
    Fit(floor=1.1038, size=0.1761, size_exponent=1.0, data=3.4755, data_exponent=0.15),
    Fit(floor=0.0, size=0.2679, size_exponent=1.0, data=4.5181, data_exponent=0.1),
    Fit(floor=0.0, size=0.2671, size_exponent=1.0, data=4.5199, data_exponent=0.1),
    Fit(floor=0.0, size=0.2688, size_exponent=1.0, data=4.5177, data_exponent=0.1),
    Fit(floor=0.0, size=0.2925, size_exponent=1.0, data=4.4833, data_exponent=0.1),
    Fit(floor=1.1214, size=0.2628, size_exponent=1.0, data=3.3893, data_exponent=0.15),
    Fit(floor=0.5907, size=0.2859, size_exponent=0.85, data=3.9424, data_exponent=0.1),
)
ERROR = 0.0342
"""Root mean square of how far a run lies from a law that does not know it, as a share."""


def useful_chars(chars: float, epoch: float) -> float:
    """Characters that are new, or as good as new, of so many read from a corpus of `epoch` characters."""
    repeats = max(0.0, chars / epoch - 1)
    return min(chars, epoch) + epoch * REPEATS * (1 - math.exp(-repeats / REPEATS))


def expect(parameters: int, chars: float, epoch: float) -> Bits:
    """The bits per character of a model after `chars` characters of a corpus that has `epoch`."""
    found = [fit.bits(parameters, useful_chars(chars, epoch)) for fit in FITS]
    spread = math.hypot(ERROR * found[0], 2 * max(abs(bits - found[0]) for bits in found))
    return Bits(found[0], found[0] - spread, found[0] + spread)
