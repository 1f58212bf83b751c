"""Which size to train in the hours that there are. In: a corpus's counts, a machine, hours. Out: `Plan`.

For each depth: as many tokens as the hours allow, at most 4 epochs, by the dial (kogpt.train.recipe) and the memory
estimate (kogpt.train.planner) of the training itself. The answer is the depth of which the law (kogpt.plan.law) expects
the fewest bits per character. The law does not know that a model learns a small corpus by heart, so the answer has no
more parameters than the corpus has tokens. Evaluations cost a third of a training token for each token that they score.
Arithmetic only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from kogpt.common.errors import UserError
from kogpt.model.config import ModelConfig
from kogpt.optim.parameter_groups import update_flops
from kogpt.plan.law import Bits, expect
from kogpt.plan.machine import Machine
from kogpt.train.distributed import Ranks
from kogpt.train.options import DEFAULT_FILE, PROJECT
from kogpt.train.planner import largest
from kogpt.train.recipe import MOST_EPOCHS, Length, Recipe, dial

DEPTHS = range(1, 65)
EVALUATIONS = 20
"""During a training, if that is at least `EVAL_EVERY` steps for each; otherwise fewer."""
EVAL_EVERY = 100
ZERO3_FILE = PROJECT / "launch" / "ds_zero3.json"
"""For several devices, if the default file's stage does not fit."""


@dataclass(frozen=True)
class Corpus:
    """What a plan has to know of a corpus."""

    tokens: int
    """Of an epoch."""
    chars_per_token: float
    scored: int
    """Tokens that an evaluation reads, with those that are only context."""


@dataclass(frozen=True)
class Plan:
    """A training, and what to expect of it."""

    depth: int
    parameters: int
    tokens: int
    """What --tokens says. The steps round it up."""
    epochs: float
    recipe: Recipe
    hours: float
    memory: int
    """Bytes on each device."""
    zero_stage: int
    bits: Bits

    @property
    def ratio(self) -> float:
        """Tokens per parameter."""
        return self.tokens / self.parameters

    @property
    def eval_every(self) -> int:
        """Steps between evaluations, and between checkpoints."""
        return _eval_every(self.recipe.steps)


def best_plan(config: Callable[[int], ModelConfig], corpus: Corpus, machine: Machine, hours: float) -> list[Plan]:
    """The best plan first, then those of the depths around it. `config` is a function from a depth to a model.

    Raises `UserError` if nothing fits.
    """
    plans: list[Plan] = []
    for depth in DEPTHS:
        try:
            plans.append(plan_for(depth, config(depth), corpus, machine, hours))
        except UserError:  # larger ones do not fit either
            if not plans:
                raise
            break
    small = [plan for plan in plans if plan.parameters <= corpus.tokens] or plans[:1]
    best = min(small, key=lambda plan: plan.bits.expected)
    return [best, *(one for one in plans if one != best and abs(one.depth - best.depth) <= 2)]


def plan_for(depth: int, config: ModelConfig, corpus: Corpus, machine: Machine, hours: float) -> Plan:
    """The plan for a size. Raises `UserError` if it does not fit the memory, or a step takes longer than the hours."""
    context, count = config.max_seq_len, config.parameter_count

    def recipe(tokens: int) -> Recipe:
        return dial(count, context, corpus.tokens // context, ranks=machine.devices, length=Length(tokens=tokens))

    def spent(tokens: int) -> float:
        return _hours(recipe(tokens), config, corpus, machine)

    low, high = 1, MOST_EPOCHS * corpus.tokens
    if spent(low) > hours:
        raise UserError(
            f"in {hours:g} hours this machine cannot make a single step of a model of depth {depth}; give more --hours."
        )
    if spent(high) <= hours:
        low = high
    while high - low > 1:  # spent(low) <= hours < spent(high)
        middle = (low + high) // 2
        low, high = (middle, high) if spent(middle) <= hours else (low, middle)
    fits = _memory(config, recipe(low), machine)
    if fits is None:
        raise UserError(
            f"a model of depth {depth} with windows of {context} tokens does not fit the "
            f"{machine.memory / 2**30:.1f} GiB of a device; give a smaller --max-seq-len."
        )
    stage, memory = fits
    bits = expect(depth, count, low * corpus.chars_per_token, corpus.tokens * corpus.chars_per_token)
    return Plan(depth, count, low, low / corpus.tokens, recipe(low), spent(low), memory, stage, bits)


def _hours(recipe: Recipe, config: ModelConfig, corpus: Corpus, machine: Machine) -> float:
    """Of a training with its evaluations: one at each `eval_every` steps, and one at the end."""
    step = recipe.batch * config.max_seq_len
    evaluations = -(-recipe.steps // _eval_every(recipe.steps))
    by_token = config.flops_per_token(config.max_seq_len)
    train = recipe.steps * step * machine.seconds(by_token + update_flops(config) / step)
    return (train + evaluations * corpus.scored * machine.seconds(by_token) / 3) / 3600


def _eval_every(steps: int) -> int:
    return max(EVAL_EVERY, steps // EVALUATIONS)


def _memory(config: ModelConfig, recipe: Recipe, machine: Machine) -> tuple[int, int] | None:
    """(ZeRO stage, bytes on each device) of the training, if it fits."""
    ranks = Ranks(0, machine.devices, 0, machine.devices, torch.device(machine.device))
    settings = {"train_batch_size": recipe.batch, "optimizer": recipe.optimizer}
    for file in (DEFAULT_FILE, ZERO3_FILE)[: machine.devices]:
        plan, need = largest(config, machine.engine(file, settings), ranks, machine.memory, document_mask=True)
        if need.to_be_free(machine.device) <= machine.memory:
            return plan.stage, need.total
    return None
