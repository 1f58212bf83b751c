"""Fit the law of `kogpt plan` to our runs, and see how it predicts those that were held back.

    python bench/law.py [--runs bench/law_runs.jsonl] [--measure 30]

In: runs of bench/dial.py (and of bench/recipe.py with the default recipe), one JSON line each. Out: the coefficients
for kogpt/plan/law.py, and the error of each run as predicted by a law that does not know it. With --measure also the
time of a token as `kogpt plan` measures it, beside that of the runs: both in CPU seconds with one thread, because other
programs may use the machine. From two runs of a depth, the difference is free of start, evaluation, and saving.

The coefficient and the exponents follow from least squares of the relative error, over a grid of exponents. A law that
does not know a run has exponents of its own. Cost: some seconds.
"""

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, in which preprocess.py has the name of a package

from kogpt.optim.parameter_groups import update_flops  # noqa: E402
from kogpt.plan.law import DEEP, FLOOR, Fit, useful_chars  # noqa: E402
from kogpt.plan.machine import measured  # noqa: E402
from kogpt.train.options import ModelOptions, model_config  # noqa: E402

SIZE_EXPONENTS, DATA_EXPONENTS = np.arange(5, 80) / 100, np.arange(5, 50) / 100
FLOORS = [hundredths / 100 for hundredths in range(100, 225, 5)]
"""Those that are tried."""


@dataclass(frozen=True)
class Options:
    """Where the runs are."""

    runs: Path = ROOT / "bench/law_runs.jsonl"
    """One JSON line per run: depth, parameters, tokens, epoch, chars_per_token, bits_per_char, perhaps cpu_seconds."""
    measure: float = 0.0
    """CPU seconds for the measurement of this machine."""


def fitted(run: dict[str, Any]) -> bool:
    """Is the law for runs like this? With fewer tokens than parameters, more parameters may be worse."""
    return run["tokens"] >= run["parameters"]


def fit(runs: Sequence[dict[str, Any]], floors: Sequence[float] = (FLOOR,)) -> Fit:
    """The law of the runs that are fitted, with the least squared relative error, and with one of these floors."""
    runs = list(filter(fitted, runs))
    sizes, data, bits = _numbers([run for run in runs if run["depth"] >= DEEP])
    found = []
    for floor, size_exponent, data_exponent in product(floors, SIZE_EXPONENTS, DATA_EXPONENTS):
        unit = Fit(0.0, 1.0, float(size_exponent), float(data_exponent), 1.0).bits(DEEP, sizes, data) / bits
        size = float(unit @ (1 - floor / bits) / (unit @ unit))
        error = float(((floor / bits + size * unit - 1) ** 2).sum())
        found.append((error, Fit(float(floor), round(size, 4), float(size_exponent), float(data_exponent), 1.0)))
    law = min(found, key=lambda one: one[0])[1]
    sizes, data, bits = _numbers([run for run in runs if run["depth"] < DEEP])
    unit = law.bits(DEEP, sizes, data) / bits
    return replace(law, shallow=round(float(unit.sum() / (unit @ unit)), 4))


def _numbers(runs: Sequence[dict[str, Any]]) -> tuple[Any, Any, Any]:
    """Parameters, useful characters, and bits per character, as arrays."""
    rows = [(run["parameters"], chars(run), run["bits_per_char"]) for run in runs]
    sizes, data, bits = np.array(rows).T
    return sizes, data, bits


def chars(run: dict[str, Any]) -> float:
    """Characters that a run has read, repeated ones by what they are worth."""
    return useful_chars(run["tokens"] * run["chars_per_token"], run["epoch"] * run["chars_per_token"])


def held_back(runs: Sequence[dict[str, Any]]) -> list[tuple[Fit, float]]:
    """For each run, the law of the others, and the relative error of what it predicts."""
    found = []
    for run in runs:
        law = fit([other for other in runs if other is not run])
        found.append((law, law.bits(run["depth"], run["parameters"], chars(run)) / run["bits_per_char"] - 1))
    return found


def fits(runs: Sequence[dict[str, Any]], others: Sequence[tuple[Fit, float]]) -> tuple[Fit, ...]:
    """The law of all runs, those of all but one, and those with half the floor and with the best one.

    `others` is what `held_back` gives for the runs.
    """
    without_one = (law for run, (law, _) in zip(runs, others, strict=True) if fitted(run))
    return fit(runs), *without_one, fit(runs, (FLOOR / 2,)), fit(runs, FLOORS)


def main() -> None:
    """Print the coefficients and the errors."""
    options = tyro.cli(Options, description=__doc__)
    runs = [json.loads(line) for line in options.runs.read_text().splitlines()]
    print("| depth | parameters | tokens | bits per character | the law without it | error | fitted |")
    print("|" + "---|" * 7)
    others = held_back(runs)
    for run, (_, error) in zip(runs, others, strict=True):
        bits, said = run["bits_per_char"], "yes" if fitted(run) else "no"
        print(f"| {run['depth']} | {run['parameters']:,} | {run['tokens']:,} | {bits:.4f} ", end="")
        print(f"| {bits * (1 + error):.4f} | {error:+.1%} | {said} |")
    errors = [abs(error) for run, (_, error) in zip(runs, others, strict=True) if fitted(run)]
    root = math.sqrt(sum(error**2 for error in errors) / len(errors))
    print(f"\nOf those that are fitted: largest error {max(errors):.1%}, root mean square {root:.1%}.\n")
    for law in fits(runs, others):
        print(f"    {law},")
    print(f"ERROR = {root:.4f}")
    if options.measure:
        _compare_times([run for run in runs if "cpu_seconds" in run], options.measure)


def _compare_times(runs: list[dict[str, Any]], seconds: float) -> None:
    """Print the time of a token, predicted and as it was."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    vocab_size = 8494
    machine = measured(
        lambda depth: model_config(ModelOptions(depth=depth), vocab_size), seconds, clock=time.process_time
    )
    print(f"\n{machine.words}; {machine.overhead * 1e6:.0f} us a token besides")
    for a, b in combinations(sorted(runs, key=lambda run: run["tokens"]), 2):
        if a["depth"] == b["depth"]:
            config = model_config(ModelOptions(depth=a["depth"]), vocab_size)
            actual = b["cpu_seconds"] - a["cpu_seconds"]
            predicted = sum(
                sign
                * run["tokens"]
                * machine.seconds(config.flops_per_token(256) + update_flops(config) / run["batch"])
                for sign, run in ((1, b), (-1, a))
            )
            print(f"depth {a['depth']}, {a['tokens']:,} to {b['tokens']:,} tokens: {actual:.1f} CPU s, ", end="")
            print(f"predicted {predicted:.1f} ({predicted / actual - 1:+.0%})")


if __name__ == "__main__":
    main()
