"""The range of an option, written at the option itself. In: options. Out: a sentence for each number out of its range.

    samples: Annotated[int, Range(1, 1000)] = 1

Every number of a command line has a `Range`. It has a largest value as well, because Python's integers have no limit
and what they are used for does: torch and parquet take 64 bits, and a list takes memory.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, get_args, get_type_hints

from kogpt.common.errors import UserError

HUGE = 10**15
"""More than anybody counts. Products of such numbers are still finite as floats."""


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; `above` and `below` exclude that end."""

    low: float
    high: float = HUGE
    above: bool = False
    below: bool = False

    def wanted(self, value: float) -> str | None:
        """What to give instead of the value, or None if it is in the range."""
        if value < self.low or (self.above and value == self.low):
            return f"more than {self.low:,}" if self.above else f"at least {self.low:,}"
        if value > self.high or (self.below and value == self.high):
            return f"less than {self.high:,}" if self.below else f"at most {self.high:,}"
        return "a number" if math.isnan(value) else None


Count = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, below=True)]


def problems(what: Any, values: Mapping[str, Any]) -> list[str]:
    """The values outside the ranges that a dataclass or function has in its annotations, a sentence each."""
    found = []
    for name, hint in get_type_hints(what, include_extras=True).items():
        value = values.get(name)
        for limits in ranges(hint):
            for number in value if isinstance(value, tuple) else () if value is None else (value,):
                if wanted := limits.wanted(number):
                    found.append(f"--{name.replace('_', '-')} is {number}; give {wanted}.")
    return found


def ranges(hint: Any) -> Iterator[Range]:
    """The `Range` of a type and of those that it is made of; of several for the same type, the last."""
    yield from [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Range)][-1:]
    for inner in get_args(hint):
        yield from ranges(inner)


def checked(command: Callable[..., None]) -> Callable[..., None]:
    """The function with its numbers checked at each call. Raises `UserError` with all problems."""

    @wraps(command)
    def call(*words: Any, **flags: Any) -> None:
        if found := problems(command, inspect.signature(command).bind(*words, **flags).arguments):
            raise UserError("\n".join(found))
        command(*words, **flags)

    return call
