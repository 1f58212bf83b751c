"""Multiple-choice tasks within a training (--eval-tasks). In: a file for kogpt.eval.tasks. Out: fields of a record.

The cost is bounded by arithmetic, not by a clock, so that the numbers do not depend on the machine's speed: a forward
pass is a third of a training step's FLOPs, and a text has at most about as many tokens as characters. Each task gives
as many of its items, drawn by its name, as keep the evaluations below 2 % of the training's FLOPs. What the batches are
padded with counts, so that other ranks or another micro-batch may mean some more or fewer items of the same draw. All
ranks score their share, because ZeRO 3 gathers weights only when all ranks call the model.
"""

import logging
import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kogpt.common.errors import UserError
from kogpt.eval.likelihood import Row, TokenNll, positions_of, score_batches
from kogpt.eval.multiple_choice import Item, above_chance, accuracies, by_task, choice_rows
from kogpt.eval.tasks import read_items
from kogpt.tokenizer.wordpiece import Tokenizer
from kogpt.train.distributed import Ranks, reduce_sum
from kogpt.train.step_metrics import agree
from kogpt.train.stop_signal import Stop

log = logging.getLogger(__name__)

SHARE = 0.02
"""Of the training's FLOPs."""
FORWARD = 1 / 3
"""Of a training step's FLOPs, the forward pass."""


@dataclass(frozen=True)
class Tasks:
    """The items of an evaluation, and a row for each of their choices."""

    items: list[Item]
    rows: list[Row]


def tokens_between(eval_every: int, save_every: int, tokens_per_step: int) -> float:
    """The tokens of training per evaluation, of which there is one every so many steps, and one at each checkpoint."""
    return tokens_per_step / (1 / eval_every + 1 / save_every - 1 / math.lcm(eval_every, save_every))


def choose(path: Path, max_seq_len: int, tokens: float, batch_rows: int, world_size: int) -> list[Item]:
    """The items of a file that fit. `tokens`: of training per evaluation. Raises `UserError` if none does.

    They are scored by so many ranks, in batches of at most `batch_rows`.
    """
    tasks = by_task(read_items(path), 0)
    items = _fitting(tasks, max_seq_len, tokens * SHARE / FORWARD, batch_rows, world_size)
    if not items:
        raise UserError(f"--eval-tasks {path} takes more than {SHARE:.0%} of the training; raise --eval-every.")
    counts = by_task(items, 0)
    taken = ", ".join(f"{len(counts[task])} of {len(own)} {task}" for task, own in tasks.items())
    log.info(f"each evaluation answers multiple-choice items: {taken}; more of them with a larger --eval-every")
    return items


def texts_of(items: Sequence[Item]) -> list[str]:
    """Every text of the items once."""
    return list(dict.fromkeys(text for item in items for text in (item.start, *item.endings)))


def encoded(items: list[Item], tokens: dict[str, list[int]], tokenizer: Tokenizer, max_seq_len: int) -> Tasks:
    """The items with their rows, from the tokens of their texts."""
    return Tasks(items, choice_rows(tokens.__getitem__, tokenizer, items, max_seq_len))


def _fitting(
    tasks: dict[str, list[Item]], max_seq_len: int, positions: float, batch_rows: int, world_size: int
) -> list[Item]:
    """The most items, as many of each task as of every other, whose batches have at most so many positions."""
    drawn = [random.Random(task).sample(own, len(own)) for task, own in tasks.items()]
    lengths = [[_lengths(item, max_seq_len) for item in own] for own in drawn]

    def cost(count: int) -> int:
        rows = [length for own in lengths for item in own[:count] for length in item]
        return positions_of(rows, batch_rows, world_size)

    count = bisect_right(range(1, max(map(len, drawn)) + 1), positions, key=cost)
    return [item for own in drawn for item in own[:count]]


def _lengths(item: Item, max_seq_len: int) -> list[int]:
    """At most about as many targets as each of its rows has."""
    return [min(len(item.prompt) + len(choice), max_seq_len) for choice in item.choices]


def run(tasks: Tasks, token_nll: TokenNll, batch_rows: int, ranks: Ranks, stop: Stop) -> dict[str, float] | int:
    """Accuracy by task and above chance, or the exit status of a stop. All ranks must call it."""
    nll = [0.0] * len(tasks.rows)
    share = {"rank": ranks.rank, "world_size": ranks.world_size}
    for chosen, scored in score_batches(token_nll, tasks.rows, device=ranks.device, batch_rows=batch_rows, **share):
        for row, value in zip(chosen, scored.tolist(), strict=True):
            nll[row] = value
        if code := agree(ranks, stop, 0.0, 0.0).stop_code:
            return code
    return fields(tasks.items, reduce_sum(ranks, *nll))


def fields(items: Sequence[Item], nll: Sequence[float]) -> dict[str, float]:
    """The fields of a record from the nll of each row."""
    found = accuracies(items, nll)
    record = {f"accuracy/{task}": one.accuracy for task, one in found.items()}
    record |= {f"answer_bits_per_char/{task}": one.bits_per_char for task, one in found.items()}
    mean = above_chance(found.values())
    return record | {"above_chance": mean.mean, "above_chance_standard_error": mean.standard_error}
