"""Which size to train in the hours that there are. In: a corpus's counts, a machine, hours. Out: `Plan`.

For each depth: as many tokens as the hours allow, at most 4 epochs, in the steps of the dial (kogpt.train.recipe). The
answer is the smallest depth whose expected bits per character (kogpt.plan.law) are within `AS_GOOD` of the fewest. It
has to fit the memory, and to have no more parameters than the corpus has tokens: the law does not know that larger
models learn such a corpus by heart. Evaluations cost a third of a training token for each token that they score.
Arithmetic only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kogpt.common.errors import UserError
from kogpt.model.config import ModelConfig
from kogpt.optim.parameter_groups import hidden_count, update_flops
from kogpt.plan.law import Bits, expect
from kogpt.plan.machine import Machine
from kogpt.train.memory import memory_per_rank
from kogpt.train.recipe import MOST_EPOCHS, best_step

DEPTHS = range(1, 65)
EVALUATIONS = 20
"""During a training, if that is at least `EVAL_EVERY` steps for each; otherwise fewer."""
EVAL_EVERY = 100
HEADROOM = 1.05
"""Factor for the memory that the allocator cannot use."""
AS_GOOD = 0.003
"""Share of the bits per character that is not worth a larger model."""


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
    epochs: float
    steps: int
    hours: float
    memory: int
    """Bytes on each device."""
    zero_stage: int
    bits: Bits

    @property
    def eval_every(self) -> int:
        """Steps between evaluations, and between checkpoints."""
        return max(EVAL_EVERY, self.steps // EVALUATIONS)


def best_plan(config: Callable[[int], ModelConfig], corpus: Corpus, machine: Machine, hours: float) -> list[Plan]:
    """The best plan first, then those of the depths around it. `config` is a function from a depth to a model.

    Raises `UserError` if nothing fits.
    """
    plans: list[Plan] = []
    for depth in DEPTHS:
        shape = config(depth)
        made = plan_for(depth, shape, corpus, machine, hours)
        if made is None or (plans and shape.parameter_count > corpus.tokens):
            break
        plans.append(made)
    if not plans:
        raise UserError(
            f"in {hours:g} hours this machine cannot make a single step, or not even --depth 1 fits its memory; "
            "give more --hours."
        )
    least = min(plan.bits.expected for plan in plans)
    best = next(plan for plan in plans if plan.bits.expected <= least * (1 + AS_GOOD))
    return [best, *(one for one in plans if one != best and abs(one.depth - best.depth) <= 2)]


def plan_for(depth: int, config: ModelConfig, corpus: Corpus, machine: Machine, hours: float) -> Plan | None:
    """The plan for a size; None if it does not fit the memory, or one step takes longer than the hours."""
    fits = _memory(config, machine)
    if fits is None:
        return None
    stage, memory = fits
    most = MOST_EPOCHS * corpus.tokens
    step = best_step(most)
    for _ in range(20):  # the batch follows the length, and the time of a token the batch
        tokens = min(most, _tokens_in(hours, step, config, corpus, machine))
        if tokens < 1 or best_step(tokens) == step:
            break
        step = min(step, best_step(tokens))
    steps = int(tokens // step)
    if steps < 1:
        return None
    tokens = steps * step
    bits = expect(config.parameter_count, tokens * corpus.chars_per_token, corpus.tokens * corpus.chars_per_token)
    spent = _hours(tokens, step, config, corpus, machine)
    epochs = tokens / corpus.tokens
    return Plan(depth, config.parameter_count, tokens, epochs, steps, spent, memory, stage, bits)


def _token_seconds(step: int, config: ModelConfig, machine: Machine) -> float:
    return machine.seconds(config.flops_per_token(config.max_seq_len) + update_flops(config) / step)


def _hours(tokens: float, step: int, config: ModelConfig, corpus: Corpus, machine: Machine) -> float:
    """Of a training with its evaluations: one at each `eval_every` steps, and one at the end."""
    steps = tokens / step
    evaluations = steps / max(EVAL_EVERY, steps // EVALUATIONS) + 1
    forward = machine.seconds(config.flops_per_token(config.max_seq_len)) / 3
    return (tokens * _token_seconds(step, config, machine) + evaluations * corpus.scored * forward) / 3600


def _tokens_in(hours: float, step: int, config: ModelConfig, corpus: Corpus, machine: Machine) -> float:
    """The most tokens whose training takes at most so many hours; 0 if not even a step does."""
    low, high = 0.0, hours * 3600 / _token_seconds(step, config, machine)
    if _hours(step, step, config, corpus, machine) > hours:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _hours(middle, step, config, corpus, machine) <= hours else (low, middle)
    return low


def _memory(config: ModelConfig, machine: Machine) -> tuple[int, int] | None:
    """(ZeRO stage, bytes on each device): the first stage and the largest micro-batch that fit."""
    half = machine.precision == "fp16"
    stages = (1 if half else 0,) if machine.devices == 1 else (2, 3)
    for stage in stages:
        for micro_batch in _halves(64):
            need = memory_per_rank(
                config,
                stage=stage,  # type: ignore[arg-type]
                world_size=machine.devices,
                precision=machine.precision,
                micro_batch=micro_batch,
                seq_len=config.max_seq_len,
                grad_accum=2,
                document_mask=True,
                muon_parameters=hidden_count(config),
            ).total
            if need * HEADROOM <= machine.memory:
                return stage, need
    return None


def _halves(size: int) -> Iterator[int]:
    while size:
        yield size
        size //= 2
