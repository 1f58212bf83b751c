"""`kogpt plan`: what to train in the hours that there are, and what to expect of it. In: a corpus. Out: a table.

The command that it prints is a training of exactly this plan.
"""

import shlex
from collections.abc import Sequence
from functools import partial

import torch
from rich.table import Table

from kogpt.common.errors import UserError
from kogpt.common.flags import WeightedPath
from kogpt.data.loader import Share
from kogpt.eval.likelihood import held_out_corpus
from kogpt.model.config import ModelConfig
from kogpt.plan.machine import Machine, measured, named
from kogpt.plan.plan import Corpus, Plan, best_plan
from kogpt.train.corpora import Corpora, open_corpora
from kogpt.train.options import DEFAULT_STRIDE, ModelOptions, RunOptions, TrainOptions, model_config
from kogpt.train.recipe import MOST_EPOCHS

MEASURED_SECONDS = 60.0
ONE_MACHINE = 8
"""The most GPUs of a machine. `deepspeed` starts more of them by a file that names the machines."""


def make_plan(
    corpora: Sequence[WeightedPath], hours: float, gpu: str | None, gpus: int | None, mfu: float, max_seq_len: int
) -> tuple[Machine, list[Plan], str]:
    """The machine, the best plan with those around it, and the command for the best."""
    if gpus is not None and gpu is None:
        raise UserError(f"--gpus {gpus} needs the name of the GPUs; add --gpu, such as --gpu H100.")
    options = TrainOptions(ModelOptions(max_seq_len=max_seq_len), run=RunOptions(corpus=tuple(corpora)))
    opened = open_corpora(options.corpora)
    if talks := next((part.corpus for part in opened.parts if part.corpus.kind == "conversations"), None):
        raise UserError(
            f"{talks.folder} holds conversations, which are for fine-tuning (--init); name a corpus of articles."
        )
    corpus = _counted(opened, max_seq_len)
    config = partial(_config, vocab_size=opened.vocab_size, max_seq_len=max_seq_len)
    machine = named(gpu, gpus or 1, mfu) if gpu is not None else measured(config, MEASURED_SECONDS)
    plans = best_plan(config, corpus, machine, hours)
    return machine, plans, command(plans[0], options.corpora, machine, hours, max_seq_len)


def _counted(corpora: Corpora, max_seq_len: int) -> Corpus:
    """What a plan has to know of the corpora."""
    batches = corpora.batches(max_seq_len, 0, Share(1, 1, 0, 1, torch.device("cpu")))
    stride = min(DEFAULT_STRIDE, max_seq_len)
    rows = sum(len(held_out_corpus(part.corpus, max_seq_len, stride).rows) for part in corpora.parts)
    return Corpus(corpora.epoch(batches) * max_seq_len, corpora.chars_per_token, rows * max_seq_len)


def _config(depth: int, vocab_size: int, max_seq_len: int) -> ModelConfig:
    return model_config(ModelOptions(depth=depth, max_seq_len=max_seq_len), vocab_size)


def command(plan: Plan, corpora: Sequence[WeightedPath], machine: Machine, hours: float, max_seq_len: int) -> str:
    """What to type for a plan."""
    words = ["python"]
    if machine.devices > ONE_MACHINE:
        words = ["deepspeed", "--hostfile", "hostfile"]
    elif machine.devices > 1:
        words = ["deepspeed", "--num_gpus", str(machine.devices)]
    words += ["launch/train.py", "--corpus", *map(str, corpora), "--out", f"runs/plan-{hours:g}h-depth-{plan.depth}"]
    words += ["--depth", str(plan.depth), "--tokens", str(plan.tokens)]
    words += ["--eval-every", str(plan.eval_every), "--save-every", str(plan.eval_every)]
    if max_seq_len != 256:
        words += ["--max-seq-len", str(max_seq_len)]
    if plan.zero_stage == 3:
        words += ["--deepspeed-config", "launch/ds_zero3.json"]
    return shlex.join(words)


def left_over(plan: Plan, hours: float) -> str | None:
    """A sentence, if the training ends well before the hours do, because the corpus is small."""
    if plan.hours > 0.9 * hours or plan.epochs < MOST_EPOCHS:
        return None
    return (
        f"The training takes only {_in_words(plan.hours)}, not --hours {hours:g}: it ends after {MOST_EPOCHS} epochs. "
        "With a larger corpus, a larger model would use the rest."
    )


def _in_words(hours: float) -> str:
    amount, unit = next(
        ((hours * count, unit) for unit, count in (("hours", 1), ("minutes", 60)) if hours * count >= 2),
        (hours * 3600, "seconds"),
    )
    return f"{amount:,.0f} {unit}"


def table(plans: list[Plan]) -> Table:
    """The plans by depth, the best one marked."""
    made = Table(title="Best first")
    for name in ("depth", "parameters", "tokens", "per parameter", "epochs", "hours", "GiB", "bits per character"):
        made.add_column(name, justify="right")
    for plan in plans:
        made.add_row(
            str(plan.depth),
            f"{plan.parameters / 1e6:,.1f}M",
            f"{plan.tokens / 1e6:,.1f}M" if plan.tokens >= 10**6 else f"{plan.tokens / 1e3:,.0f}k",
            f"{plan.ratio:,.1f}",
            f"{plan.epochs:.2f}",
            f"{plan.hours:,.2f}" if plan.hours >= 0.1 else f"{plan.hours:.4f}",
            f"{plan.memory / 2**30:.1f}",
            str(plan.bits),
        )
    return made
