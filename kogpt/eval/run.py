"""`kogpt evaluate`: bits per character and multiple-choice accuracy of a run. In: a run, texts. Out: a JSON object."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kogpt.checkpoint.choose import Wish
from kogpt.checkpoint.load import load_for_inference
from kogpt.common.device import choose_device
from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.eval.likelihood import HeldOut, held_out, held_out_corpus, score, score_articles
from kogpt.eval.multiple_choice import Item, above_chance, by_task, multiple_choice
from kogpt.eval.tasks import read_items
from kogpt.eval.texts import encoded_articles, read_texts
from kogpt.eval.uncut import Articles, both_ways, compared, uncut_articles
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.lineage import appended_roles
from kogpt.tokenizer.wordpiece import Tokenizer, open_tokenizer


def evaluate_run(
    run_folder: str | Path,
    *,
    corpus: str | Path | None = None,
    texts: str | Path | None = None,
    uncut: bool = False,
    choices: str | Path | None = None,
    shots: Sequence[int] = (0,),
    stride: int | None = None,
    limit: int | None = None,
    device: str | None = None,
    checkpoint: Wish = None,
) -> dict[str, Any]:
    """Evaluate a run on everything given, and return one JSON-compatible object.

    `corpus` and `texts` (kogpt.eval.texts) give bits per character, of the validation split and of the texts; of a
    corpus of conversations, those of the answers. With `uncut`, both are also scored without the analyzer
    (kogpt.eval.uncut). `choices` is a file for kogpt.eval.tasks, evaluated at each number of `shots`. `limit` takes the
    first articles, and the first items of each task. `checkpoint` says which one of the run (kogpt.checkpoint.choose).
    """
    _check(corpus, texts, uncut, choices, shots)
    # Read and check the files first, so that a mistake does not waste the scoring.
    raw = read_texts(texts)[:limit] if texts is not None else []
    items: list[Item] = []
    if choices is not None:
        items = [item for own in by_task(read_items(choices), 0).values() for item in own[:limit]]
        by_task(items, max(shots))
    run = load_for_inference(Path(run_folder), choose_device(device), checkpoint)
    codec = TextCodec(run.tokenizer_folder)
    result: dict[str, Any] = {"run": str(run.tokenizer_folder.parent), "step": run.info.get("step")}
    measured: dict[str, HeldOut] = {}
    whole: dict[str, Articles] = {}  # the same without the analyzer
    context = run.model.config.max_seq_len
    if corpus is not None:
        opened = open_corpus(corpus, codec.tokenizer, run_folder)
        if uncut:
            _, whole[str(corpus)] = both_ways(opened, codec.tokenizer, limit)
        measured[str(corpus)] = held_out_corpus(opened, context, stride, limit)
    if texts is not None:
        articles = encoded_articles(codec, raw)
        if uncut:
            whole[str(texts)] = uncut_articles(codec.tokenizer, raw)
        measured[str(texts)] = held_out(articles, context, stride)
    for name, text in measured.items():
        scored = score(run.model, text)
        result.setdefault("bits_per_char", {})[name] = asdict(scored)
        del result["bits_per_char"][name]["nll"]
        if name in whole:
            other = score_articles(run.model, whole[name], stride=stride)
            result.setdefault("uncut", {})[name] = asdict(compared(scored, other))
    if items:
        found = {str(count): multiple_choice(run.model, codec, items, shots=count) for count in shots}
        result["multiple_choice"] = {
            count: {task: asdict(accuracy) for task, accuracy in tasks.items()} for count, tasks in found.items()
        }
        result["above_chance"] = {count: asdict(above_chance(tasks.values())) for count, tasks in found.items()}
    return result


def open_corpus(corpus: str | Path, tokenizer: Tokenizer, run: str | Path) -> TokenCorpus:
    """The corpus. Raises `UserError` if its tokenizer is not that of the run."""
    opened = TokenCorpus.open(corpus)
    try:
        appended_roles(open_tokenizer(opened.tokenizer_folder), tokenizer)
    except ValueError:
        raise UserError(f"{corpus} has another tokenizer than {run}; use the articles with --texts instead.") from None
    return opened


def _check(
    corpus: str | Path | None,
    texts: str | Path | None,
    uncut: bool,
    choices: str | Path | None,
    shots: Sequence[int],
) -> None:
    problems = []
    if corpus is None and texts is None and choices is None:
        problems.append("nothing to evaluate on; give --corpus, --texts, or --choices.")
    elif uncut and corpus is None and texts is None:
        problems.append("--uncut is for text; give --corpus or --texts as well, or leave it out.")
    if not shots:
        problems.append("--shots is empty; give at least one number.")
    if problems:
        raise UserError("\n".join(problems))
