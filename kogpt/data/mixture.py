"""A mixture: which source, and which of its windows, is sample s of a training. Arithmetic only.

Every source has a number of windows and a share. Samples are numbered 0, 1, 2, ... over the whole training, as in
kogpt.data.sampler, and each is a window of one source. Among any n samples in a row, a source has its share of n to
within the number of sources: its samples are spread evenly, from a start that the seed draws. Shares of at most three
digits repeat every thousand samples, so they are exact in any thousand. The samples of a source run through its windows
in an order of its own per epoch. Everything is a pure function of (seed, sample), so the global batches are the same
for any number of ranks, and resuming needs no replay.

`max_repeat` limits how often a source is read. When one is used up, the others divide its share from there on, so the
order does not depend on the length of the training. `samples` is the number until all are used up.

How the sources are chosen: with shares W of a total D (whole parts of a million) and an offset U < D, the first source
has (s W + U) // D of the first s samples; what it leaves is numbered anew and divided among the other sources in the
same way. Whole numbers only, so nothing is rounded. Cost: O(sources) per sample, one permutation per source and epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kogpt.data.sampler import windows_of_samples

PARTS = 1_000_000
"""Shares are rounded to this fraction."""


class Places(NamedTuple):
    """For each sample: its source, the window of that source, both int64 in the shape of the samples."""

    sources: np.ndarray
    windows: np.ndarray


@dataclass(frozen=True)
class _Phase:
    """From sample `start` on, until a source is used up: the sources that are read, and how far they were read."""

    start: int
    active: tuple[int, ...]
    begun: tuple[int, ...]
    """Samples of each of all sources before `start`."""


class Mixture:
    """Sources with `sizes` windows and `shares` of any sum above 0."""

    def __init__(
        self, sizes: Sequence[int], shares: Sequence[float], *, seed: int, max_repeat: int | None = None
    ) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError("there is a source without a window to sample from")
        if len(shares) != len(sizes) or min(shares) <= 0:
            raise ValueError(f"{len(sizes)} sources need as many shares above 0, not {list(shares)}")
        self.sizes, self.seed = tuple(sizes), seed
        self._parts = tuple(max(1, round(PARTS * share / sum(shares))) for share in shares)
        self.shares = tuple(parts / sum(self._parts) for parts in self._parts)
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, PARTS])))
        self._offsets = tuple(float(offset) for offset in random.random(len(sizes)))
        self._phases = [_Phase(0, tuple(range(len(sizes))), (0,) * len(sizes))]
        self.samples: int | None = None
        if max_repeat is not None:
            self._limit(max_repeat)

    def places(self, samples: np.ndarray) -> Places:
        """The source and the window of each sample, an int64 array of any shape."""
        numbers, windows = np.zeros_like(samples), np.zeros_like(samples)
        phases = np.searchsorted([phase.start for phase in self._phases], samples, side="right") - 1
        for phase in np.unique(phases):
            here = phases == phase
            numbers[here], windows[here] = self._in_phase(self._phases[phase], samples[here])
        for source, size in enumerate(self.sizes):
            own = numbers == source
            if own.any():
                windows[own] = windows_of_samples(size, windows[own], seed=self.seed, source=source)
        return Places(numbers, windows)

    def used_up(self) -> list[tuple[int, int]]:
        """(source, the sample from which on it is not read any more), as `max_repeat` has it."""
        ends = [*self._phases[1:], *([] if self.samples is None else [_Phase(self.samples, (), ())])]
        return [
            (source, after.start)
            for before, after in zip(self._phases, ends, strict=False)
            for source in before.active
            if source not in after.active
        ]

    def _in_phase(self, phase: _Phase, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each sample, and which of that source's samples it is."""
        numbers, own = np.full_like(samples, phase.active[-1]), np.empty_like(samples)
        left, waiting = samples - phase.start, np.ones(len(samples), dtype=bool)
        for source, share, total, offset in self._divisions(phase.active):
            before = (left * share + offset) // total
            taken = waiting & ((left + 1) * share + offset >= (before + 1) * total)
            numbers[taken], own[taken] = source, before[taken] + phase.begun[source]
            left = left - before
            waiting &= ~taken
        own[waiting] = left[waiting] + phase.begun[phase.active[-1]]
        return numbers, own

    def _divisions(self, active: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
        """(source, its share, the total it is a share of, its offset) for all but the last source."""
        totals = [sum(self._parts[source] for source in active[i:]) for i in range(len(active) - 1)]
        return [
            (source, self._parts[source], total, int(self._offsets[source] * total))
            for source, total in zip(active, totals, strict=False)
        ]

    def _counts(self, active: tuple[int, ...], samples: int) -> list[int]:
        """How many of the first samples of a phase each active source has."""
        counts, left = [], samples
        for _, share, total, offset in self._divisions(active):
            counts.append((left * share + offset) // total)
            left -= counts[-1]
        return [*counts, left]

    def _limit(self, max_repeat: int) -> None:
        limits = [size * max_repeat for size in self.sizes]
        while self.samples is None:
            phase = self._phases[-1]
            left = [limits[source] - phase.begun[source] for source in phase.active]
            low, high = 0, sum(left) + 1  # until the first source is used up
            while low < high:
                middle = (low + high) // 2
                full = any(c >= room for c, room in zip(self._counts(phase.active, middle), left, strict=True))
                low, high = (low, middle) if full else (middle + 1, high)
            begun = list(phase.begun)
            for source, count in zip(phase.active, self._counts(phase.active, low), strict=True):
                begun[source] += count
            active = tuple(source for source in phase.active if begun[source] < limits[source])
            if active:
                self._phases.append(_Phase(phase.start + low, active, tuple(begun)))
            else:
                self.samples = phase.start + low
