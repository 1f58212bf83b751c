"""What does a share of uncut articles (preprocess/run.py --uncut) bring to programs without the analyzer, and cost?

    python bench/uncut.py --corpora CORPUS CORPUS-0.1 CORPUS-0.3 --work WORK --json TABLE.jsonl

In: corpora of the same articles with different shares. Out: a table, and one JSON line per training, written as soon as
it is done: bits per character of the same validation articles, cut by the analyzer and uncut, and the quotient with its
paired error. The same command goes on where it was interrupted, also within a training. Each cell is one of
bench/recipe.py: a qwen3 with Muon. Cost with the defaults: 2 minutes of a core per training, 1 for its evaluation.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, in which preprocess.py has the name of a package

from bench.recipe import Cell  # noqa: E402
from kogpt.data.corpus import TokenCorpus  # noqa: E402
from kogpt.eval.run import evaluate_run  # noqa: E402


@dataclass(frozen=True)
class Options:
    """What to train."""

    corpora: tuple[Path, ...]
    """Token corpora, made with different shares."""
    work: Path
    """Folder for the runs."""
    json: Path
    """JSON lines, one per training."""
    tokens: int = 1_000_000
    """Of each training."""
    depth: int = 3
    """Layers of the model."""
    lr: float = 0.04
    """Muon's learning rate."""
    seeds: int = 1
    """Trainings of each corpus."""
    limit: int | None = None
    """Evaluate only the first N validation articles."""


def measured(corpus: Path, seed: int, options: Options) -> dict[str, Any]:
    """Train on the corpus, or go on with it, and evaluate both ways."""
    cell = Cell("qwen3", "Muon", options.lr, options.tokens, options.depth, 32, seed=seed)
    run = options.work / f"{corpus.name}-{options.depth}-{options.tokens}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    (run / "cell.json").write_text(json.dumps(asdict(cell)))
    command = [str(ROOT / "bench/recipe_cell.py"), str(run / "cell.json"), str(corpus), str(run / "run")]
    subprocess.run([sys.executable, *command, str(run / "result.json")], check=True, stdout=subprocess.DEVNULL)
    result = evaluate_run(run / "run", corpus=corpus, uncut=True, limit=options.limit, checkpoint="last")
    manifest = TokenCorpus.open(corpus).manifest
    share = manifest["settings"].get("uncut", 0.0)
    told = {"corpus": corpus.name, "share": share, "tokenizer": manifest["tokenizer"]["sha256"][:8]}
    return {**told, "cell": asdict(cell), **result["uncut"][str(corpus)]}


def table(lines: list[dict[str, Any]]) -> str:
    """Share, depth, seed: bits per character cut and uncut, and how much more."""
    out = ["| share | corpus | depth, tokens, seed | cut | uncut | more (%) |", "|" + "---|" * 6]
    for line in sorted(lines, key=lambda line: (line["cell"]["depth"], line["share"])):
        cell, more, error = line["cell"], 100 * line["more"], 100 * line["more_standard_error"]
        out.append(
            f"| {line['share']:g} | {line['corpus']} | {cell['depth']}, {cell['tokens']:,}, {cell['seed']} | "
            f"{line['cut_bits_per_char']:.4f} | {line['bits_per_char']:.4f} | {more:.2f} +- {error:.2f} |"
        )
    return "\n".join(out)


def main() -> None:
    """Train what is missing, and print the table."""
    options = tyro.cli(Options, description=__doc__)
    lines = [json.loads(line) for line in options.json.read_text().splitlines()] if options.json.exists() else []
    done = {(line["corpus"], line["cell"]["depth"], line["cell"]["tokens"], line["cell"]["seed"]) for line in lines}
    for seed in range(1, options.seeds + 1):
        for corpus in options.corpora:
            if (corpus.name, options.depth, options.tokens, seed) not in done:
                lines.append(measured(corpus, seed, options))
                with options.json.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()
