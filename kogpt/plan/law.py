"""What bits per character to expect of a training. In: parameters, characters, characters of the corpus. Out: `Bits`.

The law has the form of Hoffmann et al. 2022 ("Chinchilla", section 3.3), in characters, so that it holds for any
vocabulary: E + A / (N / 1e6)^0.34 + B / (C / 1e6)^0.28, with N parameters and C characters. The exponents are theirs:
our runs span too few sizes to find any. So is `FLOOR`: their E of 1.69 nats a token, at the 1.67 characters a token of
our runs. Characters that are read again count for less and less (Muennighoff et al. 2023, equation 5): R epochs after
the first are worth R* (1 - exp(-R / R*)), R* = 15.4.

A and B are fitted to our runs (bench/law.py, bench/law_runs.jsonl). The first of `FITS` is fitted to all runs, and each
of the next to all but one. The last two have other floors: half of `FLOOR`, and the floor that fits best. The
uncertainty is the spread of these fits, and how far the runs lie from the law. It grows away from the runs. It does not
include other kinds of text: all runs read Korean Wikipedia and some books. They read 4 to 33 million tokens. Shorter
ones end before a fall in the loss, and need more bits than the law expects. Arithmetic only.
"""

import math
from dataclasses import dataclass

REPEATS = 15.4
SIZE_EXPONENT, DATA_EXPONENT = 0.34, 0.28
FLOOR = 1.5
"""Bits per character that no model can save."""


@dataclass(frozen=True)
class Fit:
    """The coefficients of the law, for millions of parameters and of characters."""

    floor: float
    size: float
    data: float

    def bits(self, parameters: float, chars: float) -> float:
        """Bits per character."""
        by_size = self.size / (parameters / 1e6) ** SIZE_EXPONENT
        return self.floor + by_size + self.data / (chars / 1e6) ** DATA_EXPONENT


@dataclass(frozen=True)
class Bits:
    """Bits per character: the most likely number, and two between which it probably lies."""

    expected: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.expected:.2f} [{self.low:.2f}, {self.high:.2f}]"


FITS = (
    Fit(floor=1.5, size=1.3849, data=2.0885),
    Fit(floor=1.5, size=1.5088, data=1.9401),
    Fit(floor=1.5, size=1.384, data=2.0805),
    Fit(floor=1.5, size=1.3439, data=2.1308),
    Fit(floor=1.5, size=1.2434, data=2.2688),
    Fit(floor=1.5, size=1.2813, data=2.29),
    Fit(floor=1.5, size=1.3655, data=2.1556),
    Fit(floor=1.5, size=1.637, data=1.6426),
    Fit(floor=1.5, size=1.3873, data=2.0755),
    Fit(floor=0.75, size=1.6309, data=3.1966),
    Fit(floor=1.6382, size=1.3396, data=1.8842),
)
ERROR = 0.0401
"""Root mean square of how far a run lies from a law that does not know it, as a share."""


def useful_chars(chars: float, epoch: float) -> float:
    """Characters that are new, or as good as new, of so many read from a corpus of `epoch` characters."""
    repeats = max(0.0, chars / epoch - 1)
    return min(chars, epoch) + epoch * REPEATS * (1 - math.exp(-repeats / REPEATS))


def expect(parameters: int, chars: float, epoch: float) -> Bits:
    """The bits per character of a model after `chars` characters of a corpus that has `epoch`."""
    found = [fit.bits(parameters, useful_chars(chars, epoch)) for fit in FITS]
    spread = math.hypot(ERROR * found[0], max(abs(bits - found[0]) for bits in found))
    return Bits(found[0], found[0] - spread, found[0] + spread)
