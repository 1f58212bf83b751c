"""Ranges are read from the annotations, of fields and of parameters, also within tuples and unions."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from kogpt.common.errors import UserError
from kogpt.common.flags import OptionalCount
from kogpt.common.ranges import HUGE, Range, Share, ShareBelowOne, checked, problems


@dataclass(frozen=True)
class Options:
    size: Annotated[OptionalCount, Range(2, 10)] = None
    share: ShareBelowOne = 0.0
    penalty: Annotated[float, Range(0, above=True)] = 1.0
    shots: tuple[Annotated[int, Range(0)], ...] = (0,)
    name: str = "x"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(), []),
        (Options(size=10, share=0.999, penalty=1e-9, shots=(0, HUGE)), []),
        (Options(size=0), ["--size is 0; give at least 2."]),
        (Options(size=11), ["--size is 11; give at most 10."]),
        (Options(share=1.0), ["--share is 1.0; give less than 1."]),
        (Options(share=float("nan")), ["--share is nan; give a number."]),
        (Options(penalty=0.0), ["--penalty is 0.0; give more than 0."]),
        (Options(shots=(1, -1)), ["--shots is -1; give at least 0."]),
        (
            Options(size=1, shots=(HUGE + 1,)),
            ["--size is 1; give at least 2.", f"--shots is {HUGE + 1}; give at most {HUGE:,}."],
        ),
    ],
)
def test_values_outside(options: Options, said: list[str]) -> None:
    assert problems(Options, vars(options)) == said


def test_a_checked_function() -> None:
    seen = []

    @checked
    def command(share: Share, /, min_size: OptionalCount = None) -> None:
        seen.append((share, min_size))

    command(0.5, min_size=3)
    with pytest.raises(UserError) as caught:
        command(2, min_size=0)
    assert set(str(caught.value).split("\n")) == {"--share is 2; give at most 1.", "--min-size is 0; give at least 1."}
    assert seen == [(0.5, 3)]
