"""`kogpt report RUN`: what a run was, did, and cost, as one page to look at or send. In: a run folder. Out: a page.

The page needs nothing else, neither a network nor the run (kogpt.common.page). It can be written while the run goes on.
Of the corpora it shows more if their folders are still where they were; results of `kogpt evaluate --json-file` are
shown if they lie in the run folder as evaluation*.json.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.page import Block, heading, lines, paragraph, table, thinned, write_page
from kogpt.data.corpus import TokenCorpus, count_rows
from kogpt.data.facts import sources
from kogpt.eval.report import rows as evaluation_rows
from kogpt.tracking.run_record import Curve, RunRecord

REPORT = "report.html"
_MOST_EVALUATIONS, _MOST_SAMPLES = 40, 8


def write_report(run: Path, path: Path) -> None:
    """Write the report of a run folder. Raises `UserError` if it is none."""
    record = RunRecord.open(run)
    write_page(path, f"Run {record.name}", [*_summary(record), *_curves(record), *_evaluation(record), *_rest(record)])


def _rest(record: RunRecord) -> Iterator[Block]:
    yield from _samples(record)
    yield from _data(record)
    yield heading("Machine")
    yield table(_machine(record))
    yield heading("Cost")
    yield table(_cost(record))
    yield heading("Settings")
    yield table(record.settings.items())


def _summary(record: RunRecord) -> Iterator[Block]:
    about, best = record.about, record.best
    rows = [
        ("state", f"{about.get('state')} at step {record.step:,} of {about.get('steps', record.step):,}"),
        ("model", f"{about.get('model', {}).get('arch', 'gpt2')}, {about.get('parameters', 0) / 1e6:.1f}M parameters"),
        ("tokens", f"{record.tokens.get(record.step, 0):,}"),
    ]
    if best is not None:
        rows.append(("best validation", f"{best[1]:.4f} bits per character, at step {best[0]:,}"))
    yield table(rows)


def _curves(record: RunRecord) -> Iterator[Block]:
    bits: dict[str, Curve] = {"training": thinned(record.training_bits)} if record.training_bits else {}
    if record.curve("val_bits_per_char"):
        bits["validation"] = record.curve("val_bits_per_char")
    named = "val_bits_per_char/"
    bits |= {f"validation, {key.removeprefix(named)}": record.curve(key) for key in _keys(record, named)}
    yield heading("Bits per character")
    yield lines(bits, "step", f"bits per character{', validation' if list(bits) == ['validation'] else ''}", zero=False)
    if record.training_bits:
        yield paragraph("That of training is computed from the loss per token, by the corpus's characters per token.")
    shown = [
        ("Loss", "loss", "nats per token", False),
        ("Learning rate", "lr", "learning rate", True),
        ("Speed", "tokens_per_s", "tokens/s", True),
        ("Gradient norm", "grad_norm", "norm before clipping", True),
    ]
    for title, key, unit, zero in shown:
        series = {"training" if key == "loss" else key: thinned(record.curve(key))}
        if key == "loss" and record.curve("val_loss"):
            series["validation"] = record.curve("val_loss")
        yield heading(title)
        yield lines(series, "step", unit, zero=zero)
    if record.curve("above_chance"):
        yield heading("Multiple choice during training")
        yield lines({"above chance": record.curve("above_chance")}, "step", "0 guessing, 1 perfect")


def _keys(record: RunRecord, start: str) -> list[str]:
    return list(dict.fromkeys(key for one in record.metrics for key in one if key.startswith(start)))


def _evaluation(record: RunRecord) -> Iterator[Block]:
    yield heading("Evaluation")
    evaluated = [one for one in record.metrics if one.get("val_loss") is not None]
    if evaluated:
        keys = ["val_loss", "val_bits_per_char", *_keys(record, "val_bits_per_char/")]
        keys += [*_keys(record, "accuracy/"), *_keys(record, "above_chance")]
        shown = _spread(evaluated, _MOST_EVALUATIONS)
        numbers = [["" if one.get(key) is None else f"{one[key]:.4f}" for key in keys] for one in shown]
        yield table(
            [(f"{one['step']:,}", f"{one['tokens']:,}", *own) for one, own in zip(shown, numbers, strict=True)],
            ("step", "tokens", *(key.replace("_", " ").replace("val ", "validation ") for key in keys)),
        )
    else:
        yield paragraph("none during the training")
    for path in sorted(record.folder.glob("evaluation*.json")):
        try:
            result = json.loads(path.read_bytes())
            rows, step = evaluation_rows(result), result["step"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no result of `kogpt evaluate --json-file` ({error!r}); remove it.") from None
        yield paragraph(f"Step {step}, from {path.name}; ± is the standard error:")
        yield table(rows, ("measured on", "number", "value", "of"))


def _samples(record: RunRecord) -> Iterator[Block]:
    yield heading("Samples")
    told = [one for one in record.metrics if one.get("continuations")]
    if not told:
        yield paragraph("none")
    texts: dict[str, list[tuple[str, str]]] = {}
    for one in told:
        for prompt, text in one["continuations"]:
            texts.setdefault(prompt, []).append((f"{one['step']:,}", text.replace("\n", " ↵ ")))
    for prompt, own in texts.items():
        yield paragraph(prompt)
        yield table(_spread(own, _MOST_SAMPLES), ("step", "goes on with"))


def _data(record: RunRecord) -> Iterator[Block]:
    yield heading("Data")
    for one in record.corpora:
        of = f", {one['share']:.1%} of the windows" if len(record.corpora) > 1 else ""
        yield paragraph(f"{one['name']}{of}, fingerprint {str(one['corpus'])[:12]}")
        corpus = _corpus(one)
        if corpus is None:
            yield paragraph("This corpus is not in its folder any more.")
            counts = record.about.get("corpus_counts") if one["corpus"] == record.about.get("corpus") else None
            yield table(count_rows(counts)) if counts else ""
            continue
        yield table(count_rows(corpus.manifest["counts"]))
        yield table(
            [(source.name, *(f"{number:,}" for number in source[1:])) for source in sources(corpus)],
            ("source", corpus.kind, "characters", "tokens"),
        )


def _corpus(one: dict[str, Any]) -> TokenCorpus | None:
    """The corpus that the run was trained on, if it is still there."""
    try:
        corpus = TokenCorpus.open(one["folder"])
    except (UserError, OSError):
        return None
    return corpus if corpus.fingerprint == one["corpus"] else None


def _machine(record: RunRecord) -> list[tuple[str, str]]:
    about = record.about
    last = record.metrics[-1] if record.metrics else {}
    memory = [value for key, value in last.items() if key.startswith("memory_gib_rank") and value is not None]
    device = about.get("device", "unknown")
    ranks = about.get("world_size", 1)
    rows = [("device", f"{device}, {ranks} {'rank' if ranks == 1 else 'ranks'}")]
    if about.get("cpu"):
        rows.append(("CPU of rank 0", f"{about['cpu']}, {about.get('cores')} usable cores"))
    if memory:
        rows.append(("largest memory of a rank", f"{max(memory):.2f} GiB"))
    keys = {"precision": "precision", "zero_stage": "ZeRO stage", "torch": "torch", "git_commit": "code version"}
    return rows + [(name, str(about[key])) for key, name in keys.items() if about.get(key) is not None]


def _cost(record: RunRecord) -> list[tuple[str, str]]:
    hours, tokens = record.hours.get(record.step, 0.0), record.tokens.get(record.step, 0)
    used = [value for _, value in record.curve("mfu")]
    rows = [
        ("hours of training", f"{hours:.2f} (without evaluations and checkpoints)"),
        ("device hours", f"{record.device_hours:.2f}"),
        ("tokens", f"{tokens:,}"),
        ("passes over the corpus", f"{dict(record.curve('epoch')).get(record.step, 0.0):.2f}"),
        ("FLOPs", "unknown" if record.flops is None else f"{record.flops:.3g}"),
        ("tokens/s", f"{tokens / max(3600 * hours, 1e-9):,.0f} on average"),
    ]
    return rows + ([("MFU", f"{sum(used) / len(used):.1%} on average")] if used else [])


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, spread evenly, the ends among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
