"""`kogpt plan`: what to train in the hours that there are, and what to expect of it. In: a corpus. Out: a table.

The command that it prints is a training of exactly this plan.
"""

import shlex
from functools import partial
from pathlib import Path

from rich.table import Table

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.sources import open_source
from kogpt.eval.likelihood import held_out_corpus
from kogpt.model.config import ModelConfig
from kogpt.plan.machine import Machine, measured, named
from kogpt.plan.plan import Corpus, Plan, best_plan
from kogpt.train.options import DEFAULT_STRIDE, ModelOptions, model_config
from kogpt.train.recipe import MOST_EPOCHS

MEASURED_SECONDS = 60.0


def make_plan(
    folder: Path, hours: float, gpu: str | None, gpus: int | None, mfu: float, max_seq_len: int
) -> tuple[Machine, list[Plan], str]:
    """The machine, the best plan with those around it, and the command for the best."""
    if gpus is not None and gpu is None:
        raise UserError(f"--gpus {gpus} needs the name of the GPUs; add --gpu, such as --gpu H100.")
    opened = TokenCorpus.open(folder)
    if opened.kind == "conversations":
        raise UserError(f"{folder} holds conversations, which are for fine-tuning (--init); name a corpus of articles.")
    config = partial(_config, vocab_size=opened.vocab_size, max_seq_len=max_seq_len)
    source = open_source(opened, max_seq_len)
    train = opened.manifest["counts"]["splits"]["train"]
    scored = len(held_out_corpus(opened, max_seq_len, min(DEFAULT_STRIDE, max_seq_len)).rows) * max_seq_len
    corpus = Corpus(source.windows * max_seq_len, train["chars"] / train["ids"], scored)
    machine = named(gpu, gpus or 1, mfu) if gpu is not None else measured(config, MEASURED_SECONDS)
    plans = best_plan(config, corpus, machine, hours)
    return machine, plans, command(plans[0], folder, machine, hours, max_seq_len)


def _config(depth: int, vocab_size: int, max_seq_len: int) -> ModelConfig:
    return model_config(ModelOptions(depth=depth, max_seq_len=max_seq_len), vocab_size)


def command(plan: Plan, folder: Path, machine: Machine, hours: float, max_seq_len: int) -> str:
    """What to type for a plan."""
    words = ["python"] if machine.devices == 1 else ["deepspeed", "--num_gpus", str(machine.devices)]
    words += ["launch/train.py", "--corpus", str(folder), "--out", f"runs/plan-{hours:g}h-depth-{plan.depth}"]
    words += ["--depth", str(plan.depth), "--tokens", str(plan.tokens)]
    words += ["--eval-every", str(plan.eval_every), "--save-every", str(plan.eval_every)]
    if max_seq_len != 256:
        words += ["--max-seq-len", str(max_seq_len)]
    if plan.zero_stage == 3:
        words += ["--deepspeed-config", "launch/ds_zero3.json"]
    return shlex.join(words)


def left_over(plan: Plan, hours: float) -> str | None:
    """A sentence, if the training ends well before the hours do."""
    if plan.hours > 0.9 * hours:
        return None
    return (
        f"{hours - plan.hours:.3g} of the {hours:g} hours are left over: the training ends after {MOST_EPOCHS} epochs. "
        "With a larger corpus, a larger model would use them."
    )


def table(plans: list[Plan]) -> Table:
    """The plans by depth, the best one marked."""
    made = Table(title="Best first")
    for name in ("depth", "parameters", "tokens", "per parameter", "epochs", "hours", "GiB", "bits per character"):
        made.add_column(name, justify="right")
    for plan in plans:
        made.add_row(
            str(plan.depth),
            f"{plan.parameters / 1e6:,.1f}M",
            f"{plan.tokens / 1e6:,.1f}M",
            f"{plan.ratio:,.1f}",
            f"{plan.epochs:.2f}",
            f"{plan.hours:.2f}",
            f"{plan.memory / 2**30:.1f}",
            str(plan.bits),
        )
    return made
