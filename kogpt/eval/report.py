"""The result of kogpt.eval.run.evaluate_run as a table for the terminal and as flat names for W&B."""

import math
from typing import Any

from rich.markup import escape
from rich.table import Table

_MORE = {"acc": "acc as in lm-eval (not divided by length)", "bits_per_char": "bits per character of the right choice"}


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """The result of `evaluate_run` as flat names, for W&B."""
    flat = {
        f"bits_per_char/{name}": scored["bits_per_char"] for name, scored in result.get("bits_per_char", {}).items()
    }
    flat |= {f"bits_per_char_uncut/{name}": scored["bits_per_char"] for name, scored in result.get("uncut", {}).items()}
    for shots, tasks in result.get("multiple_choice", {}).items():
        for task, scored in tasks.items():
            keys = ("accuracy", "standard_error", "bits_per_char", "acc")
            flat |= {f"{task}/{shots}-shot/{key}": scored[key] for key in keys}
    for shots, scored in result.get("above_chance", {}).items():
        flat[f"above_chance/{shots}-shot"] = scored["mean"]
    return flat


def rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The result of `evaluate_run` for people: what was measured, on what, the value, and on how much."""
    found = []
    for name, scored in result.get("bits_per_char", {}).items():
        value = with_error(scored["bits_per_char"], scored.get("standard_error"), 4)
        found.append((name, "bits per character", value, f"{scored['chars']:,} characters"))
        if name in result.get("uncut", {}):
            found += _uncut(result["uncut"][name])
    for shots, tasks in result.get("multiple_choice", {}).items():
        for task, scored in tasks.items():
            value = f"{with_error(scored['accuracy'], scored['standard_error'], 3)} (chance {scored['chance']:.2f})"
            found.append((task, f"accuracy, {shots} shots", value, f"{scored['items']:,} items"))
            for key, what in _MORE.items():
                if key in scored:  # files of version 0.1 have neither these nor the mean
                    found.append(("", what, with_error(scored[key], None, 3), ""))
        if mean := result.get("above_chance", {}).get(shots):
            value = f"{with_error(mean['mean'], mean['standard_error'], 3)} (guessing 0, perfect 1)"
            found.append(("mean", f"accuracy above chance, {shots} shots", value, f"{len(tasks):,} tasks"))
    return found


def _uncut(scored: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    value = with_error(scored["bits_per_char"], scored["standard_error"], 4)
    more, error = (None if scored[key] is None else 100 * scored[key] for key in ("more", "more_standard_error"))
    return [
        ("", "bits per character, uncut", value, f"{scored['chars']:,} characters"),
        ("", "more than with the analyzer (%)", with_error(more, error, 2), f"{scored['articles']:,} articles"),
    ]


def with_error(value: float | None, error: float | None, digits: int) -> str:
    """A number, with its standard error if there is one. In a file, None stands for what is not finite."""
    if value is None:
        return "not finite"
    known = error is not None and math.isfinite(error)
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if known else "")


def table(result: dict[str, Any]) -> Table:
    """The result of `evaluate_run` for the terminal."""
    out = Table("measured on", "number", "value", "of", title=f"{escape(result['run'])} at step {result['step']}")
    for row in rows(result):
        out.add_row(*map(escape, row))
    return out
