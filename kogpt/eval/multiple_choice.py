"""Accuracy on multiple-choice questions (KoBEST: COPA, HellaSwag, BoolQ). In: a model and items. Out: `Accuracy`.

The score of a choice is its log-likelihood after the prompt, divided by its length in characters (acc_norm in lm-eval).
Characters are used because the number of tokens depends on the analyzer. Prompt and choice are encoded separately and
joined, so that all choices of an item follow the same tokens. With the spacing "original" this gives one space between
them. Few-shot prompts begin with solved examples from other items of the same task, drawn by (seed, item). Prompts that
exceed max_seq_len are truncated on the left. The standard error is sqrt(p (1 - p) / (n - 1)).
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kogpt.common.errors import UserError
from kogpt.eval.likelihood import Row, row_nll
from kogpt.model.decoder import Decoder
from kogpt.tokenizer.codec import TextCodec


@dataclass(frozen=True)
class Accuracy:
    """The share of correct answers, its standard error, and the share that guessing would get."""

    accuracy: float
    standard_error: float
    chance: float
    items: int


@dataclass(frozen=True)
class Item:
    """A multiple-choice question. `label` is the index of the correct choice."""

    task: str
    prompt: str
    choices: tuple[str, ...]
    label: int


def multiple_choice(
    model: Decoder, codec: TextCodec, items: Sequence[Item], *, shots: int = 0, seed: int = 0
) -> dict[str, Accuracy]:
    """Accuracy by task."""
    encode = _remembering(codec.encode)
    return {
        task: _accuracy(own, _predictions(model, codec, encode, own, shots, seed))
        for task, own in by_task(items, shots).items()
    }


def by_task(items: Sequence[Item], shots: int) -> dict[str, list[Item]]:
    """Group items by task. Raises `UserError` if a task has too few items for this number of examples."""
    grouped: dict[str, list[Item]] = {}
    for item in items:
        grouped.setdefault(item.task, []).append(item)
    for task, own in grouped.items():
        if shots >= len(own):
            raise UserError(f"--shots {shots} needs more than {shots} items of {task}; there are {len(own)}.")
    return grouped


def _remembering(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """The same function with a cache, because a text may be an example of many items."""
    known: dict[str, list[int]] = {}
    return lambda text: known[text] if text in known else known.setdefault(text, encode(text))


def _predictions(
    model: Decoder,
    codec: TextCodec,
    encode: Callable[[str], list[int]],
    items: Sequence[Item],
    shots: int,
    seed: int,
) -> list[int]:
    limit = model.config.max_seq_len + 1
    between = encode("\n\n")
    rows: list[Row] = []
    for number, item in enumerate(items):
        others = [i for i in range(len(items)) if i != number]
        prompt = [codec.tokenizer.cls_id]
        for i in random.Random(f"{seed} {number}").sample(others, shots):
            example = items[i]
            prompt += encode(example.prompt) + encode(example.choices[example.label]) + between
        prompt += encode(item.prompt)
        for choice in item.choices:
            end = encode(choice)
            if not end:
                raise UserError(f"an item of {item.task} has a choice without tokens, {choice!r}; remove the item.")
            kept = (prompt + end)[-limit:]
            rows.append(Row(kept, max(len(kept) - len(end) - 1, 0)))
    nll = iter(row_nll(model, rows))
    return [min(range(len(i.choices)), key=[next(nll) / len(c) for c in i.choices].__getitem__) for i in items]


def _accuracy(items: Sequence[Item], predictions: Sequence[int]) -> Accuracy:
    count = len(items)
    share = sum(p == item.label for p, item in zip(predictions, items, strict=True)) / count
    error = math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else math.nan
    return Accuracy(share, error, sum(1 / len(item.choices) for item in items) / count, count)
