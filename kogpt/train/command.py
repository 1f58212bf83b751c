"""A training from its command line. In: the words after `launch/train.py`, and ranks. Out: an exit status.

The command line is read before the ranks connect, so that a mistake is reported at once. Ranks that have started can do
several trainings, one after another, as those of the demo do.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from kogpt.common.errors import UserError
from kogpt.common.numerics import allow_tf32, be_deterministic
from kogpt.train import deepspeed_config, deepspeed_file, distributed
from kogpt.train.corpora import Corpora, open_corpora
from kogpt.train.distributed import Ranks
from kogpt.train.options import TrainOptions, parse, together
from kogpt.train.setup import settle
from kogpt.train.stop_signal import Stop
from kogpt.train.trainer import Trainer, TrainingFailed

log = logging.getLogger(__name__)


class Command(NamedTuple):
    """What a command line names, opened and checked."""

    options: TrainOptions
    corpora: Corpora
    deepspeed: dict[str, Any]
    """The content of the DeepSpeed file."""


def read(words: Sequence[str], description: str | None = None) -> Command:
    """Parse a command line, and open what it names. Raises `UserError` with every problem found."""
    options = parse(words, description)
    corpora, content = together(
        lambda: open_corpora(options.corpora, options.run.mix, options.run.max_repeat),
        lambda: deepspeed_file.read(options.run.deepspeed_config),
    )
    deepspeed_file.check_sections(options.run.deepspeed_config, content)
    return Command(options, corpora, content)


def train(command: Command, ranks: Ranks, stop: Stop) -> int:
    """Train to the end or until stopped; the exit status. All ranks must call it."""
    options = command.options
    allow_tf32()
    if options.run.deterministic:
        be_deterministic()
    setup = settle(options, command.deepspeed, command.corpora, ranks)
    plan = deepspeed_config.plan(
        options.run.deepspeed_config,
        setup.content,
        world_size=ranks.world_size,
        device=ranks.device.type,
        has_bf16=distributed.all_have_bf16(ranks),
        has_fp16=distributed.all_have_fp16(ranks),
    )
    for line in (*setup.notes, *plan.notes, f"run folder: {options.out}"):
        log.info(line)
    return Trainer(options, setup, plan, command.corpora, ranks, stop).train()


def end(run: Callable[[], int]) -> NoReturn:
    """Run, and end this rank: with 2 and a sentence for a mistake of the user, with 1 and one if training cannot go on.

    launch/supervise.py names a file for the exit status, because launchers turn every status into 1. It takes the
    processes whose environment has that name for ranks, so what this rank starts must not have it.
    """
    status = os.environ.pop("KOGPT_STATUS_FILE", None)
    try:
        code = run()
    except (UserError, TrainingFailed) as error:
        code = 2 if isinstance(error, UserError) else 1
        if begin := distributed.speaker():
            print(f"{begin}{error}", file=sys.stderr, flush=True)
        else:
            time.sleep(2)  # the launcher ends all ranks once one has ended, so rank 0 must print first
    if status:
        Path(status).write_text(str(code))
    distributed.leave(code)
