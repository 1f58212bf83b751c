"""Report the cells of bench/tokenization.py: means, spreads, and intervals as two tables and a figure.

A cell is {"name", "arm": {"analyzer", "vocabulary"}, "seed", "steps", "nats": {budget: {condition: nats by article}}};
further data about an arm's held-out text are {"chars" by article, "ids_per_char", "unknown", "come_back"}.
"""

import statistics
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kogpt.eval.likelihood import bits_per_char

BUDGETS, CLEAN, BASELINE, RESAMPLES = ("characters", "compute"), "clean", "none", 2000


def summarise(cells: list[dict[str, Any]], held_out: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry for each arm that has a cell, in the order of `held_out` (by the arm's name)."""
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for cell in sorted(cells, key=lambda cell: cell["seed"]):
        by_arm.setdefault(cell["name"], []).append(cell)
    result = []
    for name, held in held_out.items():
        if (own := by_arm.get(name)) is None:
            continue
        entry: dict[str, Any] = {**own[0]["arm"], "steps": own[0]["steps"], "seeds": len(own), "bits_per_char": {}}
        entry |= {key: held[key] for key in ("ids_per_char", "unknown", "come_back")}
        base = by_arm.get(f"{BASELINE}-{entry['vocabulary']}")
        for budget in BUDGETS:
            entry["bits_per_char"][budget] = {}
            for condition in own[0]["nats"][budget]:
                nats = matrix(own, budget, condition)
                bits = [bits_per_char(total, sum(held["chars"])) for total in nats.sum(1).tolist()]
                numbers = {"mean": statistics.mean(bits), "sd": statistics.stdev(bits) if len(bits) > 1 else None}
                if base is not None and entry["analyzer"] != BASELINE:
                    numbers |= difference(nats, matrix(base, budget, condition))
                entry["bits_per_char"][budget][condition] = numbers
        result.append(entry)
    return result


def matrix(cells: list[dict[str, Any]], budget: str, condition: str) -> np.ndarray:
    """Nats [seeds, articles]."""
    return np.array([cell["nats"][budget][condition] for cell in cells])


def difference(ours: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """How many percent more bits than the baseline, and the 95 % interval of the paired bootstrap."""
    seeds = min(len(ours), len(base))
    ours, base = ours[:seeds], base[:seeds]
    numbers = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        chosen = np.ix_(numbers.integers(seeds, size=seeds), numbers.integers(ours.shape[1], size=ours.shape[1]))
        draws.append(ours[chosen].sum() / base[chosen].sum())
    interval = 100 * (np.quantile(draws, [0.025, 0.975]) - 1)
    return {"percent": float(100 * (ours.sum() / base.sum() - 1)), "interval": interval.tolist()}


def show(result: list[dict[str, Any]]) -> None:
    """Clean text at both budgets; changed spaces at equal characters."""
    conditions = list(result[0]["bits_per_char"]["characters"])
    clean = Table("vocabulary", "analyzer", "ids/char", "[UNK]", "comes back", "seeds", title="clean text, bits/char")
    spaces = Table("vocabulary", "analyzer", title="equal characters, bits per character of the clean text")
    for name in ("equal characters", "vs none", "equal compute", "vs none"):
        clean.add_column(name)
    for condition in conditions:
        spaces.add_column(condition)
    for entry in result:
        arm, bits = (entry["vocabulary"], entry["analyzer"]), entry["bits_per_char"]
        lossless = f"{entry['come_back']:.0%}" + (" (lossy)" if entry["come_back"] < 1 else "")
        facts = (f"{entry['ids_per_char']:.3f}", f"{entry['unknown']:.2%}", lossless, str(entry["seeds"]))
        clean.add_row(*arm, *facts, *(text for budget in BUDGETS for text in shown(bits[budget][CLEAN])))
        spaces.add_row(*arm, *(" ".join(shown(bits["characters"][condition])).strip() for condition in conditions))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(clean)
    console.print(spaces)


def shown(numbers: dict[str, Any]) -> tuple[str, str]:
    """Mean and spread; percent and interval."""
    spread = "" if numbers["sd"] is None else f" ± {numbers['sd']:.3f}"
    against = ""
    if "percent" in numbers:
        low, high = numbers["interval"]
        against = f"{numbers['percent']:+.1f} % [{low:+.1f}, {high:+.1f}]"
    return f"{numbers['mean']:.3f}{spread}", against


def draw(result: list[dict[str, Any]], path: Path) -> None:
    """Left: percent against "none", clean text; right: bits per character as the spaces change."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(17, 5), layout="constrained")
    compared = [pair for pair in product(BUDGETS, result) if "percent" in pair[1]["bits_per_char"][pair[0]][CLEAN]]
    for row, (budget, entry) in enumerate(compared):
        numbers = entry["bits_per_char"][budget][CLEAN]
        left.plot(numbers["interval"], [row, row], color="tab:blue" if budget == "characters" else "tab:orange")
        left.plot(numbers["percent"], row, "ko")
    left.axvline(0, color="gray", linewidth=1)
    left.set_yticks(range(len(compared)), [f"{label(entry)}, equal {budget}" for budget, entry in compared])
    left.invert_yaxis()
    left.set_title(f'clean text: % more bits per character than "{BASELINE}"')
    for number, entry in enumerate(result):
        bits = entry["bits_per_char"]["characters"]
        marker = "o" if entry["vocabulary"] == "given" else "s"
        places = [i + 0.09 * (number - (len(result) - 1) / 2) for i in range(len(bits))]  # beside one another
        right.plot(places, [numbers["mean"] for numbers in bits.values()], marker, label=label(entry))
    right.set_xticks(range(len(bits)), list(bits))
    right.set_xlim(-0.5, len(bits) - 0.5)
    right.grid(axis="y", alpha=0.3)
    right.set_title("bits per character of the clean text, equal characters")
    figure.legend(*right.get_legend_handles_labels(), fontsize=9, loc="outside right center")
    figure.savefig(path, dpi=110)


def label(entry: dict[str, Any]) -> str:
    """An arm's name in the picture."""
    lossy = " (lossy)" if entry["come_back"] < 1 else ""
    return f"{entry['analyzer']}{lossy}, {entry['vocabulary']} vocabulary"
