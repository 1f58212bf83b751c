"""Accuracy on multiple-choice questions, such as those of KoBEST. In: a model and items. Out: `Accuracy`.

The score of a choice is its log-likelihood after the prompt, divided by its length in characters (acc_norm in lm-eval).
Characters are used because the number of tokens depends on the analyzer. `acc` is the accuracy without the division, to
compare with lm-eval: of KoBEST's tasks, that divides only in HellaSwag. A space lies between prompt and choice. They
are encoded separately and joined, so that all choices of an item follow the same tokens. Few-shot prompts begin with
solved examples from other items of the same task, drawn by (seed, item). Prompts that exceed max_seq_len are truncated
on the left. The standard error is sqrt(p (1 - p) / (n - 1)). The mean over tasks is that of
(accuracy - chance) / (1 - chance), which is 0 for guessing and 1 for perfect (CORE of DCLM, arXiv 2406.11794).
"""

import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from kogpt.common.errors import UserError
from kogpt.eval.likelihood import Row, bits_per_char, row_nll
from kogpt.model.decoder import Decoder
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import Tokenizer


@dataclass(frozen=True)
class Accuracy:
    """The share of correct answers, its standard error, and the share that guessing would get.

    `bits_per_char` are those of the correct choices: a small model, which guesses, still shows progress there. `acc` is
    the share where scores are not divided by the length.
    """

    accuracy: float
    standard_error: float
    chance: float
    items: int
    bits_per_char: float
    acc: float


@dataclass(frozen=True)
class AboveChance:
    """The mean over tasks of the accuracy above chance, from 0 (guessing) to 1, and its standard error."""

    mean: float
    standard_error: float


@dataclass(frozen=True)
class Item:
    """A multiple-choice question. `label` is the index of the correct choice."""

    task: str
    prompt: str
    choices: tuple[str, ...]
    label: int

    @property
    def start(self) -> str:
        """The prompt, without white space at its end."""
        return self.prompt.rstrip()

    @property
    def endings(self) -> tuple[str, ...]:
        """What follows `start` with each choice: that white space, a space, and the choice, as in lm-eval."""
        return tuple(f"{self.prompt[len(self.start) :]} {choice}" for choice in self.choices)


def multiple_choice(
    model: Decoder, codec: TextCodec, items: Sequence[Item], *, shots: int = 0, seed: int = 0
) -> dict[str, Accuracy]:
    """Accuracy by task."""
    rows = choice_rows(codec.encode, codec.tokenizer, items, model.config.max_seq_len, shots=shots, seed=seed)
    return accuracies(items, row_nll(model, rows))


def above_chance(tasks: Collection[Accuracy]) -> AboveChance:
    """The mean of tasks, which count alike; their errors are independent."""
    room = [1 - task.chance for task in tasks]
    mean = sum((task.accuracy - task.chance) / left for task, left in zip(tasks, room, strict=True)) / len(tasks)
    error = math.hypot(*(task.standard_error / left for task, left in zip(tasks, room, strict=True))) / len(tasks)
    return AboveChance(mean, error)


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


def choice_rows(
    encode: Callable[[str], list[int]],
    tokenizer: Tokenizer,
    items: Sequence[Item],
    max_seq_len: int,
    *,
    shots: int = 0,
    seed: int = 0,
) -> list[Row]:
    """A row for each choice of each item, task by task, with the choice as its scored targets.

    `encode` gives the token ids of `start` and `endings` of the items, and with `shots` of a line feed.
    """
    encode = _remembering(encode)
    rows: list[Row] = []
    for own in by_task(items, shots).values():
        for number, item in enumerate(own):
            prompt = [tokenizer.cls_id]
            for i in random.Random(f"{seed} {number}").sample(range(len(own) - 1), shots):
                example = own[i + (i >= number)]  # any other item
                solved = tokenizer.after_others(encode(example.endings[example.label]))
                prompt += encode(example.start) + solved + encode("\n\n")
            prompt += encode(item.start)
            for ending in item.endings:
                rows.append(_row(prompt, tokenizer.after_others(encode(ending)), ending, item.task, max_seq_len + 1))
    return rows


def _row(prompt: list[int], end: list[int], ending: str, task: str, limit: int) -> Row:
    if not end:
        raise UserError(f"an item of {task} has a choice without tokens, {ending.strip()!r}; remove the item.")
    kept = (prompt + end)[-limit:]
    return Row(kept, max(len(kept) - len(end) - 1, 0))


def accuracies(items: Sequence[Item], nll: Sequence[float] | np.ndarray) -> dict[str, Accuracy]:
    """Accuracy by task, from the nll of each row of `choice_rows`."""
    left = iter(nll)
    return {
        task: _accuracy(own, [[next(left) for _ in i.choices] for i in own]) for task, own in by_task(items, 0).items()
    }


def _accuracy(items: Sequence[Item], nll: list[list[float]]) -> Accuracy:
    count = len(items)
    per_char = [[n / len(c) for n, c in zip(own, i.choices, strict=True)] for own, i in zip(nll, items, strict=True)]
    share = _right(items, per_char)
    error = math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else math.nan
    correct = sum(float(own[item.label]) for own, item in zip(nll, items, strict=True))
    chars = sum(len(item.choices[item.label]) for item in items)
    chance = sum(1 / len(item.choices) for item in items) / count
    return Accuracy(share, error, chance, count, bits_per_char(correct, chars), _right(items, nll))


def _right(items: Sequence[Item], scores: list[list[float]]) -> float:
    """The share of items whose correct choice has the lowest score."""
    return sum(own.index(min(own)) == item.label for own, item in zip(scores, items, strict=True)) / len(items)
