"""Train a GPT on a token corpus, on a CPU, one or more GPUs, or several nodes.

    deepspeed launch/train.py --corpus CORPUS --out RUN --preset small --epochs 1

Without `deepspeed`, `python launch/train.py` trains in one process. `torchrun`, `srun`, and `mpirun` work as well.
Batch sizes, ZeRO stage, precision, and optimizer are set in ds_config.json. Repeat the same command to resume from the
last checkpoint.
"""

import logging
import os
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", category=FutureWarning)

from kogpt.train import distributed  # noqa: E402

distributed.choose_accelerator()

from kogpt.common.errors import UserError  # noqa: E402
from kogpt.common.log import set_up_logging  # noqa: E402
from kogpt.common.numerics import allow_tf32, be_deterministic  # noqa: E402
from kogpt.train import deepspeed_config, deepspeed_file  # noqa: E402
from kogpt.train.corpora import open_corpora  # noqa: E402
from kogpt.train.options import parse, together  # noqa: E402
from kogpt.train.stop_signal import Stop  # noqa: E402
from kogpt.train.trainer import Trainer, TrainingFailed  # noqa: E402

log = logging.getLogger("kogpt.launch")


def run() -> int:
    """Parse, check, train; the exit status."""
    distributed.prepare_environment()
    set_up_logging(int(os.environ["RANK"]), "stdout")
    options = parse(sys.argv[1:], __doc__)
    corpora, content = together(
        lambda: open_corpora(options.corpora, options.run.mix, options.run.max_repeat),
        lambda: deepspeed_file.read(options.run.deepspeed_config),
    )
    deepspeed_file.check_sections(options.run.deepspeed_config, content)
    allow_tf32()
    if options.run.deterministic:
        be_deterministic()
    stop = Stop()
    ranks = distributed.start()
    plan = deepspeed_config.plan(
        options.run.deepspeed_config,
        content,
        world_size=ranks.world_size,
        device=ranks.device.type,
        has_bf16=distributed.all_have_bf16(ranks),
    )
    for line in (*plan.notes, f"run folder: {options.out}"):
        log.info(line)
    code = Trainer(options, plan, corpora, ranks, stop).train()
    distributed.finish(ranks)
    return code


def main() -> None:
    """Exit with 2 and one sentence for a mistake of the user, with 1 and one sentence if training cannot continue."""
    try:
        code = run()
    except (UserError, TrainingFailed) as error:
        code = 2 if isinstance(error, UserError) else 1
        if begin := distributed.speaker():
            print(f"{begin}{error}", file=sys.stderr, flush=True)
        else:
            time.sleep(2)  # the launcher ends all ranks once one has ended, so rank 0 must print first
    if status := os.environ.get("KOGPT_STATUS_FILE"):  # for launch/supervise.py: launchers turn every status into 1
        Path(status).write_text(str(code))
    distributed.leave(code)


if __name__ == "__main__":
    main()
