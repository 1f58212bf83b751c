"""Fit the law of `kogpt plan` to our runs, and see how it predicts those that were held back.

    python bench/law.py [--runs bench/law_runs.jsonl] [--measure 30]

In: runs of bench/dial.py (and of bench/recipe.py with the default recipe), one JSON line each. Out: the coefficients
for kogpt/plan/law.py, and the error of each run as predicted by a law that does not know it. With --measure also the
time of a token as `kogpt plan` measures it, beside that of the runs: both in CPU seconds with one thread, because other
programs may use the machine. From two runs of a depth, the difference is free of start, evaluation, and saving.

The exponents are published ones. The coefficients follow from least squares of the relative error, none of them
negative. Cost: a second.
"""

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, in which preprocess.py has the name of a package

from kogpt.optim.parameter_groups import update_flops  # noqa: E402
from kogpt.plan.law import DATA_EXPONENT, FLOOR, SIZE_EXPONENT, Fit, useful_chars  # noqa: E402
from kogpt.plan.machine import measured  # noqa: E402
from kogpt.train.options import ModelOptions, model_config  # noqa: E402


@dataclass(frozen=True)
class Options:
    """Where the runs are."""

    runs: Path = ROOT / "bench/law_runs.jsonl"
    """One JSON line per run: depth, parameters, tokens, epoch, chars_per_token, bits_per_char, perhaps cpu_seconds."""
    measure: float = 0.0
    """CPU seconds for the measurement of this machine."""


def fit(runs: Sequence[dict[str, Any]], floor: float | None = FLOOR) -> Fit:
    """The law with the least squared relative error, with this floor, or with the best one."""
    sizes = np.array([run["parameters"] / 1e6 for run in runs])
    data = np.array([chars(run) / 1e6 for run in runs])
    bits = np.array([run["bits_per_char"] for run in runs])
    columns = np.stack([np.ones_like(bits), sizes**-SIZE_EXPONENT, data**-DATA_EXPONENT], 1) / bits[:, None]
    if floor is None:
        found = _not_negative(columns, np.ones_like(bits))
    else:
        found = np.array([floor, *_not_negative(columns[:, 1:], 1 - floor / bits)])
    return Fit(*(round(float(x), 4) for x in found))


def chars(run: dict[str, Any]) -> float:
    """Characters that a run has read, repeated ones by what they are worth."""
    return useful_chars(run["tokens"] * run["chars_per_token"], run["epoch"] * run["chars_per_token"])


def _not_negative(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares of `columns` x = `target` with no x below 0, by trying which of them are 0."""
    best, least = np.zeros(columns.shape[1]), math.inf
    for used in product((True, False), repeat=columns.shape[1]):
        if not any(used):
            continue
        found = np.zeros(columns.shape[1])
        found[list(used)] = np.linalg.lstsq(columns[:, list(used)], target, rcond=None)[0]
        error = float(((columns @ found - target) ** 2).sum())
        if (found >= 0).all() and error < least:
            best, least = found, error
    return best


def fits(runs: Sequence[dict[str, Any]]) -> tuple[Fit, ...]:
    """The law of all runs, those of all but one, and those with half the floor and with the best one."""
    others = (law for law, _ in held_back(runs))
    return fit(runs), *others, fit(runs, FLOOR / 2), fit(runs, None)


def held_back(runs: Sequence[dict[str, Any]]) -> list[tuple[Fit, float]]:
    """For each run, the law of all others, and the relative error of what it predicts."""
    found = []
    for i, run in enumerate(runs):
        law = fit([other for j, other in enumerate(runs) if j != i])
        found.append((law, law.bits(run["parameters"], chars(run)) / run["bits_per_char"] - 1))
    return found


def main() -> None:
    """Print the coefficients and the errors."""
    options = tyro.cli(Options, description=__doc__)
    runs = [json.loads(line) for line in options.runs.read_text().splitlines()]
    others = held_back(runs)
    print("| parameters | tokens | bits per character | the law without it | error |")
    print("|" + "---|" * 5)
    for run, (_, error) in zip(runs, others, strict=True):
        bits = run["bits_per_char"]
        print(f"| {run['parameters']:,} | {run['tokens']:,} | {bits:.4f} | {bits * (1 + error):.4f} | {error:+.1%} |")
    root = math.sqrt(sum(error**2 for _, error in others) / len(others))
    print(f"\nLargest error {max(abs(error) for _, error in others):.1%}, root mean square {root:.1%}.\n")
    for law in fits(runs):
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
