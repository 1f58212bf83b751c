"""Whether a cost grows faster than its input: measured at a length and at twice that length."""

from collections.abc import Callable

NOISE = 0.3  # seconds; a garbage collection, a compilation
ATTEMPTS = 4


def more_than_linear(seconds: Callable[[int], dict[str, float]], length: int) -> dict[str, tuple[float, float]]:
    """The steps whose CPU time at twice the length is over 2.5 times that at once, in each of several attempts.

    A busy machine or a compiler may slow one measurement down; what is quadratic is slow in all of them.
    """
    slow: dict[str, tuple[float, float]] = {}
    for _ in range(ATTEMPTS):
        once, twice = seconds(length), seconds(2 * length)
        slow = {step: (once[step], twice[step]) for step in once if twice[step] > 2.5 * max(once[step], NOISE)}
        if not slow:
            break
    return slow
