"""What bits per character to expect of a training. In: the model's size, characters, those of the corpus. Out: `Bits`.

The law has the form of Hoffmann et al. 2022 ("Chinchilla", section 3.3), in characters, so that it holds for any
vocabulary: E + A / (N / 1e6)^a + B / (C / 1e6)^b, with N parameters and C characters. E is `FLOOR`, their 1.69 nats a
token, at the 1.67 characters a token of our runs. B follows from the balance of Chinchilla: with as much compute as its
70 billion parameters and 1.4 trillion tokens took, no other share of size and text is better. A, a, and b are fitted to
our runs (bench/law.py, bench/law_runs.jsonl), which are too small to tell that balance. Models of one or two layers
need more by a factor, which is fitted as well. Characters that are read again count for less and less (Muennighoff et
al. 2023, equation 5): R epochs after the first are worth R* (1 - exp(-R / R*)), R* = 15.4.

The first of `FITS` is fitted to all runs, and each of the next to all but one. The last two have other floors: half of
`FLOOR`, and the floor that fits best. The uncertainty is the spread of these fits, and how far the runs lie from the
law. It grows away from the runs. It does not include other kinds of text: all runs read Korean Wikipedia and some
books. They read 4 to 33 million tokens, at least one for each parameter. Shorter trainings need more bits than the law
expects. Arithmetic only.
"""

import math
from dataclasses import dataclass

REPEATS = 15.4
FLOOR = 1.5
"""Bits per character that no model can save."""
BALANCED = 70e9, 1.4e12 * 1.67
"""Parameters and characters of Chinchilla."""
DEEP = 3
"""Layers from which on the number of parameters says enough."""


@dataclass(frozen=True)
class Fit:
    """The coefficients and exponents of the law, for millions of parameters and of characters."""

    floor: float
    size: float
    size_exponent: float
    data_exponent: float
    shallow: float
    """Factor for models with fewer layers than `DEEP`."""

    @property
    def data(self) -> float:
        """B. At `BALANCED`, a percent more parameters saves as much as a percent more characters."""
        parameters, chars = BALANCED
        by_size = self.size_exponent * self.size / (parameters / 1e6) ** self.size_exponent
        return by_size * (chars / 1e6) ** self.data_exponent / self.data_exponent

    def bits(self, depth: int, parameters: float, chars: float) -> float:
        """Bits per character."""
        by_size = self.size / (parameters / 1e6) ** self.size_exponent
        deep = self.floor + by_size + self.data / (chars / 1e6) ** self.data_exponent
        return deep if depth >= DEEP else self.shallow * deep


@dataclass(frozen=True)
class Bits:
    """Bits per character: the most likely number, and two between which it probably lies."""

    expected: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.expected:.2f} [{self.low:.2f}, {self.high:.2f}]"


FITS = (
    Fit(floor=1.5, size=0.9204, size_exponent=0.23, data_exponent=0.23, shallow=1.094),
    Fit(floor=1.5, size=0.9204, size_exponent=0.23, data_exponent=0.23, shallow=1.0917),
    Fit(floor=1.5, size=0.9204, size_exponent=0.23, data_exponent=0.23, shallow=1.0981),
    Fit(floor=1.5, size=0.9204, size_exponent=0.23, data_exponent=0.23, shallow=1.0948),
    Fit(floor=1.5, size=0.9204, size_exponent=0.23, data_exponent=0.23, shallow=1.0913),
    Fit(floor=1.5, size=0.9189, size_exponent=0.23, data_exponent=0.23, shallow=1.095),
    Fit(floor=1.5, size=0.9247, size_exponent=0.24, data_exponent=0.24, shallow=1.0873),
    Fit(floor=1.5, size=0.9212, size_exponent=0.23, data_exponent=0.23, shallow=1.0934),
    Fit(floor=1.5, size=0.9204, size_exponent=0.23, data_exponent=0.23, shallow=1.094),
    Fit(floor=1.5, size=0.7958, size_exponent=0.21, data_exponent=0.24, shallow=1.1048),
    Fit(floor=1.5, size=0.9202, size_exponent=0.23, data_exponent=0.23, shallow=1.0941),
    Fit(floor=0.75, size=1.2199, size_exponent=0.15, data_exponent=0.17, shallow=1.0979),
    Fit(floor=1.55, size=0.8951, size_exponent=0.24, data_exponent=0.24, shallow=1.0924),
)
ERROR = 0.0074
"""Root mean square of how far a run lies from a law that does not know it, as a share."""


def useful_chars(chars: float, epoch: float) -> float:
    """Characters that are new, or as good as new, of so many read from a corpus of `epoch` characters."""
    repeats = max(0.0, chars / epoch - 1)
    return min(chars, epoch) + epoch * REPEATS * (1 - math.exp(-repeats / REPEATS))


def expect(depth: int, parameters: int, chars: float, epoch: float) -> Bits:
    """The bits per character of a model after `chars` characters of a corpus that has `epoch`."""
    found = [fit.bits(depth, parameters, useful_chars(chars, epoch)) for fit in FITS]
    spread = math.hypot(ERROR * found[0], max(abs(bits - found[0]) for bits in found))
    return Bits(found[0], found[0] - spread, found[0] + spread)
