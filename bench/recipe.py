"""How many tokens does a recipe need for the bits per character of GPT-2 with AdamW?

    python bench/recipe.py --corpus CORPUS --work WORK --json TABLE.jsonl
        [--cells sweep lengths pieces seeds large] [--other-corpora CORPUS ...]

In: a token corpus with a validation split. Out: a table, and one JSON line per training, written as soon as it is done.
The same command goes on where it was interrupted, also within a training. Each group of cells needs the ones before it:

    sweep     {gpt2, qwen3} x {AdamW, Muon} x learning rates, all with --tokens
    lengths   each of the four with its best learning rate, and a half and a quarter of the tokens
    pieces    qwen3 with Muon and half of the tokens: one piece more at a time (bench/recipe_cell.py), and other
              vocabularies (--other-corpora); the baseline with a longer warm-up
    seeds     the baseline, and the winner with half of the tokens: two more seeds
    large     the baseline, and the winner with half of the tokens: --large-depth layers

Every training is a whole one, with its own fall of the learning rate. The tokens that a recipe needs are interpolated
between its three lengths, linearly in the logarithm of the tokens. Cost with the defaults: 4 million tokens are 7 to 10
minutes on 2 idle cores with bf16, and the whole table about 4 hours.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import tyro

ROOT = Path(__file__).resolve().parent.parent

CONTEXT = 256
ARMS = (("gpt2", "AdamW"), ("gpt2", "Muon"), ("qwen3", "AdamW"), ("qwen3", "Muon"))
BASELINE = "gpt2 AdamW"
WINNER, WINNING_PIECE = "qwen3 Muon", "documents"
"""Named and not searched for: AdamW's share of 1.0 has the fewest bits per character at half of the tokens but not at
all of them, and a larger vocabulary means more parameters."""
RATES = {"AdamW": (1e-3, 2e-3, 4e-3), "Muon": (0.02, 0.04, 0.08)}
"""Three around the best. A sweep whose best is at an end needs one more."""
LENGTHS = (0.25, 0.5)
PIECES = ("untied", "head-64", "documents", "z-loss", "cautious")

Group = Literal["sweep", "lengths", "pieces", "seeds", "large"]
Line = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One training."""

    arch: str
    optimizer: str
    lr: float
    tokens: int
    depth: int
    batch: int
    """Windows of 256 tokens per step."""
    decay: float = 0.4
    """Share of the steps in which the learning rate falls (wsd)."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    adam: float | None = None
    """AdamW's learning rate beside Muon, as a share of Muon's. None: kogpt's own, 0.1."""
    piece: str = ""
    """A piece that is tried on top, as in the header, "untied", "batch", "decay", "warmup", "adam", or
    "vocabulary"."""
    corpus: str = ""
    """The folder's name if it is not the main corpus (another vocabulary)."""
    seed: int = 1

    @property
    def arm(self) -> str:
        """Architecture and optimizer."""
        return f"{self.arch} {self.optimizer}"


@dataclass(frozen=True)
class Options:
    """What to train."""

    corpus: Path
    """Token corpus."""
    work: Path
    """Folder for the runs; each is removed when its line is written."""
    json: Path
    """The table, one JSON line per training."""
    cells: tuple[Group, ...] = ("sweep", "lengths", "pieces", "seeds", "large")
    """Groups of trainings, in this order."""
    arms: tuple[str, ...] = tuple(" ".join(arm) for arm in ARMS)
    """Architectures and optimizers of the sweep and the lengths."""
    other_corpora: tuple[Path, ...] = ()
    """The same articles with other vocabularies, for the pieces."""
    tokens: int = 4_000_000
    """Length of the baseline's training."""
    depth: int = 3
    """Layers, 64 wide per layer."""
    large_depth: int = 4
    """Of the group "large"."""
    batch: int = 32
    """Windows of 256 tokens per step."""


def cells(options: Options, group: Group, lines: list[Line]) -> list[Cell]:
    """The cells of a group; those after the sweep depend on what came out of the groups before."""
    size: dict[str, Any] = {"tokens": options.tokens, "depth": options.depth, "batch": options.batch}
    arms = [arm for arm in ARMS if " ".join(arm) in options.arms]
    if group == "sweep":
        return [Cell(*arm, lr=lr, **size) for arm in arms for lr in RATES[arm[1]]]
    if group == "lengths":
        tuned = [best(lines, " ".join(arm), options) for arm in arms]
        return [replace(cell, tokens=round(share * options.tokens)) for cell in tuned for share in LENGTHS]
    half = options.tokens // 2
    if group == "pieces":
        both = replace(best(lines, WINNER, options), tokens=half)
        found = [replace(both, piece=piece) for piece in PIECES]
        for factor in (0.5, 2.0):
            batch, lr = round(both.batch * factor), both.lr * math.sqrt(factor)
            found.append(replace(both, piece="batch", batch=batch, lr=lr))
        found += [replace(both, piece="decay", decay=decay) for decay in (0.2, 0.8)]
        found += [replace(both, piece="warmup", warmup=warmup) for warmup in (0.0, 0.2)]
        found += [replace(both, piece="adam", adam=share) for share in (1 / 30, 0.3, 1.0)]
        found.append(replace(best(lines, BASELINE, options), piece="warmup", warmup=0.2))
        return found + [replace(both, piece="vocabulary", corpus=str(corpus)) for corpus in options.other_corpora]
    baseline = best(lines, BASELINE, options)
    winner = replace(best(lines, WINNER, options), tokens=half, piece=WINNING_PIECE)
    if group == "seeds":
        return [replace(cell, seed=seed) for cell in (baseline, winner) for seed in (2, 3)]
    return [replace(cell, depth=options.large_depth) for cell in (baseline, winner)]


def best(lines: list[Line], arm: str, options: Options) -> Cell:
    """The cell of the sweep with the lowest bits per character."""
    found = [line for line in lines if _in_sweep(Cell(**line["cell"]), options) and Cell(**line["cell"]).arm == arm]
    if not found:
        raise SystemExit(f"there is no sweep of {arm} in {options.json} yet; run --cells sweep first.")
    return Cell(**min(found, key=lambda line: line["bits_per_char"])["cell"])


def _in_sweep(cell: Cell, options: Options) -> bool:
    plain = Cell(cell.arch, cell.optimizer, cell.lr, options.tokens, options.depth, options.batch)
    return cell == plain and cell.lr in RATES[cell.optimizer]


def run(cell: Cell, options: Options) -> Line:
    """Train a cell in a process of its own, or go on with it."""
    name = sha256(json.dumps(asdict(cell)).encode()).hexdigest()[:16]
    folder = options.work / name
    options.work.mkdir(parents=True, exist_ok=True)
    asked, result = folder.with_suffix(".cell.json"), folder.with_suffix(".result.json")
    asked.write_text(json.dumps(asdict(cell)))
    command = [sys.executable, str(ROOT / "bench/recipe_cell.py")]
    command += [str(asked), cell.corpus or str(options.corpus), str(folder), str(result)]
    with open(folder.with_suffix(".log"), "ab") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise SystemExit(f"a training failed; {log.name} says why.")
    line = json.loads(result.read_text())
    cut = options.json.exists() and options.json.read_bytes()[-1:] not in (b"", b"\n")
    with open(options.json, "a", encoding="utf-8") as table:
        table.write("\n" * cut + json.dumps(line) + "\n")
        table.flush()
        os.fsync(table.fileno())
    shutil.rmtree(folder)
    for path in options.work.glob(f"{name}.*"):
        path.unlink()
    return line


def read(path: Path) -> list[Line]:
    """The lines of the table so far. A last line that was cut is dropped."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def tokens_to_reach(bits: float, lengths: list[tuple[int, float]]) -> float:
    """The tokens at which a recipe has `bits`, from (tokens, bits) of its trainings; inf if it never has.

    Between two lengths it is interpolated in the logarithm of the tokens; below the shortest, that length is returned.
    """
    lengths = sorted(lengths)
    if lengths[0][1] <= bits:
        return lengths[0][0]
    for (few, high), (many, low) in pairwise(lengths):
        if low <= bits < high:
            return few * (many / few) ** ((high - bits) / (high - low))
    return math.inf


def report(lines: list[Line], options: Options) -> str:
    """The table: each training, and the tokens and compute that each recipe needs."""
    rows = [(Cell(**line["cell"]), line) for line in lines]
    out = ["| recipe | lr | tokens | piece | seed | parameters | bits per character | s |", "|" + "---|" * 8]
    for cell, line in rows:
        value = {"decay": cell.decay, "batch": cell.batch, "warmup": cell.warmup, "adam": cell.adam}.get(cell.piece, "")
        out.append(
            f"| {cell.arm}, depth {cell.depth} | {cell.lr:g} | {line['tokens']:,} | {cell.piece or '-'} {value} | "
            f"{cell.seed} | {line['parameters']:,} | {line['bits_per_char']:.4f} | {line['seconds']:.0f} |"
        )
    try:
        base = best(lines, BASELINE, options)
    except SystemExit:
        return "\n".join(out)
    goal = next(line for cell, line in rows if cell == base)
    out += ["", f"To reach the {goal['bits_per_char']:.4f} of {BASELINE} (lr {base.lr:g}):", ""]
    out += ["| recipe | tokens | share of tokens | share of FLOPs |", "|" + "---|" * 4]
    for name in options.arms:
        if not (arm := [(cell, line) for cell, line in rows if cell.arm == name and _in_sweep(cell, options)]):
            continue
        lr = min(arm, key=lambda row: row[1]["bits_per_char"])[0].lr
        plain = [line for cell, line in rows if replace(cell, tokens=options.tokens) == replace(base, **_arm(name, lr))]
        needed = tokens_to_reach(goal["bits_per_char"], [(line["tokens"], line["bits_per_char"]) for line in plain])
        flops = needed * plain[0]["flops"] / plain[0]["tokens"]
        share, least = needed / goal["tokens"], "<= " if needed == min(line["tokens"] for line in plain) else ""
        out.append(f"| {name}, lr {lr:g} | {least}{needed:,.0f} | {share:.2f} | {flops / goal['flops']:.2f} |")
    return "\n".join([*out, *_spreads(rows)])


def _arm(name: str, lr: float) -> dict[str, Any]:
    arch, optimizer = name.split()
    return {"arch": arch, "optimizer": optimizer, "lr": lr}


def _spreads(rows: list[tuple[Cell, Line]]) -> list[str]:
    """Mean and standard deviation of what was trained with several seeds."""
    groups: dict[Cell, list[float]] = {}
    for cell, line in rows:
        groups.setdefault(replace(cell, seed=1), []).append(line["bits_per_char"])
    return [
        f"{cell.arm} {cell.piece}, {cell.tokens:,} tokens: {mean(bits):.4f} +- {stdev(bits):.4f} ({len(bits)} seeds)"
        for cell, bits in groups.items()
        if len(bits) > 1
    ]


def main(say: Callable[[str], None] = print) -> None:
    """Train what is missing, group by group, and print the table."""
    options = tyro.cli(Options, description=__doc__)
    for group in options.cells:
        lines = read(options.json)
        known = {Cell(**line["cell"]) for line in lines}
        for cell in cells(options, group, lines):
            if cell not in known:
                known.add(cell)
                line = run(cell, options)
                piece = f" {cell.piece}" if cell.piece else ""
                say(f"{cell.arm}{piece}, lr {cell.lr:g}: {line['bits_per_char']:.4f} in {line['seconds']:.0f} s")
    say(report(read(options.json), options))


if __name__ == "__main__":
    main()
