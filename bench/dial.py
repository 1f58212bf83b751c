"""Does the dial set a training as well as a sweep would? And what bits per character does a training reach?

    python bench/dial.py --corpus CORPUS --work WORK --json RUNS.jsonl [--groups sweep law] [--depths 2]

In: a token corpus with a validation split. Out: a table, and one JSON line per training as soon as it is done; the same
command goes on where it was interrupted. Trainings are those of launch/train.py.

    sweep    depths 1 and 2, four million tokens: the dial's recipe, its learning rate x 0.5 and x 2, and its batch
             x 0.5 and x 2 (the learning rate follows the batch)
    law      the dial's recipe at other depths and lengths, for the law of `kogpt plan` (bench/law.py): none shorter,
             because the loss falls faster between 2 and 4 million tokens than before and after

Cost: three to four minutes for each training of the sweep, four hours for the law, on one core with bf16.
"""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, in which preprocess.py has the name of a package

from kogpt.data.corpus import TokenCorpus  # noqa: E402
from kogpt.data.sources import open_source  # noqa: E402
from kogpt.train.options import ModelOptions, model_config  # noqa: E402
from kogpt.train.recipe import Length, dial  # noqa: E402

SWEPT, TOKENS = (1, 2), 4_000_000
LAW = ((2, 8), (2, 16), (3, 4), (3, 8), (3, 16), (4, 4), (4, 16), (5, 16))
"""Depths, and millions of tokens, besides those of the sweep."""

Group = Literal["sweep", "law"]


@dataclass(frozen=True)
class Cell:
    """One training."""

    depth: int
    tokens: int
    lr: float = 1.0
    """Factor on the dial's learning rate."""
    batch: float = 1.0
    """Factor on the dial's batch."""


@dataclass(frozen=True)
class Options:
    """What to train."""

    corpus: Path
    """Token corpus."""
    work: Path
    """Folder for the runs; each is removed when its line is written."""
    json: Path
    """The runs, one JSON line each."""
    groups: tuple[Group, ...] = ("sweep", "law")
    """Groups of trainings, in this order."""
    depths: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Only these."""


def cells(group: Group) -> list[Cell]:
    """The trainings of a group."""
    if group == "law":
        return [Cell(depth, round(millions * 1e6)) for depth, millions in LAW]
    around = [{}, {"lr": 0.5}, {"lr": 2.0}, {"batch": 0.5}, {"batch": 2.0}]
    return [Cell(depth, TOKENS, **factors) for depth in SWEPT for factors in around]


def train(cell: Cell, options: Options) -> dict[str, Any]:
    """Train a cell, or go on with it, and return its line."""
    corpus = TokenCorpus.open(options.corpus)
    config = model_config(ModelOptions(depth=cell.depth), corpus.vocab_size)
    counts = corpus.manifest["counts"]["splits"]["train"]
    context, windows = config.max_seq_len, open_source(corpus, config.max_seq_len).windows
    length = Length(tokens=cell.tokens)
    recipe = dial(config.parameter_count, context, windows, length=length)
    batch = round(recipe.batch * cell.batch)
    recipe = dial(config.parameter_count, context, windows, length=length, batch=batch)
    params = recipe.optimizer["params"]
    optimizer = recipe.optimizer | {"params": params | {"lr": params["lr"] * cell.lr}}
    name = "-".join(f"{value:g}" for value in asdict(cell).values())
    run = options.work / name
    options.work.mkdir(parents=True, exist_ok=True)
    file = run.with_suffix(".json")
    shipped = json.loads((ROOT / "ds_config.json").read_text())
    file.write_text(json.dumps(shipped | {"train_batch_size": batch, "optimizer": optimizer}))
    command = [sys.executable, str(ROOT / "launch/train.py")]
    command += ["--corpus", str(options.corpus), "--out", str(run), "--deepspeed-config", str(file)]
    command += ["--depth", str(cell.depth), "--tokens", str(cell.tokens), "--eval-every", "1000000"]
    command += ["--save-every", "1000000", "--keep", "1", "--prompts", "--wandb", "off"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    begun, before = run.exists(), _cpu_seconds()
    with open(run.with_suffix(".log"), "ab") as log:
        subprocess.run(command, stdout=log, stderr=log, env=environment, check=True)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(run)
    file.unlink()
    run.with_suffix(".log").unlink()
    return {
        "cell": asdict(cell),
        "depth": cell.depth,
        "parameters": config.parameter_count,
        "epoch": windows * context,
        "chars_per_token": counts["chars"] / counts["ids"],
        "tokens": records[-1]["tokens"],
        "batch": batch * context,
        "lr": optimizer["params"]["lr"],
        "bits_per_char": records[-1]["val_bits_per_char"],
        "seconds": sum(record["step_s"] for record in records),
        **({} if begun else {"cpu_seconds": _cpu_seconds() - before}),  # else an earlier attempt used some, too
    }


def _cpu_seconds() -> float:
    """CPU time of all processes that this one has waited for; start, evaluation, and saving count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(lines: list[dict[str, Any]]) -> str:
    """The runs, and what the best of each sweep gains."""
    out = ["| depth | parameters | tokens | tokens a step | lr | bits per character | s |", "|" + "---|" * 7]
    out += [
        f"| {line['depth']} | {line['parameters']:,} | {line['tokens']:,} | {line['batch']:,} | "
        f"{line['lr']:.3g} | {line['bits_per_char']:.4f} | {line.get('seconds', math.nan):.0f} |"
        for line in lines
    ]
    for depth in SWEPT:
        swept = {
            Cell(**line["cell"]): line["bits_per_char"]
            for line in lines
            if "cell" in line and (line["depth"], line["cell"]["tokens"]) == (depth, TOKENS)
        }
        if own := swept.get(Cell(depth, TOKENS)):
            best = min(swept, key=swept.__getitem__)
            out.append(
                f"\nDepth {depth}: the dial {own:.4f}; the best of {len(swept)} {swept[best]:.4f} (learning rate x "
                f"{best.lr:g}, batch x {best.batch:g}), {own / swept[best] - 1:.2%} better."
            )
    return "\n".join(out)


def main() -> None:
    """Train what is missing, and print the table."""
    options = tyro.cli(Options, description=__doc__)
    lines = [json.loads(line) for line in options.json.read_text().splitlines()] if options.json.exists() else []
    for group in options.groups:
        for cell in cells(group):
            if cell.depth in options.depths and asdict(cell) not in [line.get("cell") for line in lines]:
                lines.append(train(cell, options))
                with open(options.json, "a", encoding="utf-8") as table:
                    table.write(json.dumps(lines[-1]) + "\n")
                    table.flush()
                    os.fsync(table.fileno())
                print(cell, f"{lines[-1]['bits_per_char']:.4f} in {lines[-1]['seconds']:.0f} s", flush=True)
    print(report(lines))


if __name__ == "__main__":
    main()
