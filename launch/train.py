"""Train a GPT on a token corpus, on a CPU, one or more GPUs, or several nodes.

    deepspeed launch/train.py --corpus CORPUS --out RUN --depth 12

Without `deepspeed`, `python launch/train.py` trains in one process. `torchrun`, `srun`, and `mpirun` work as well.
--depth sets everything that is not given: width, batch, learning rates, and length. ZeRO stage and precision are in
ds_config.json. Repeat the same command to resume from the last checkpoint.
"""

import os
import sys
import warnings

warnings.filterwarnings("ignore", category=FutureWarning)

from kogpt.train import distributed  # noqa: E402

distributed.choose_accelerator()

from kogpt.common.log import set_up_logging  # noqa: E402
from kogpt.train.command import end, read, train  # noqa: E402
from kogpt.train.stop_signal import Stop  # noqa: E402


def run() -> int:
    """Parse, check, train; the exit status."""
    distributed.prepare_environment()
    set_up_logging(int(os.environ["RANK"]), "stdout")
    command = read(sys.argv[1:], __doc__)
    stop = Stop()
    ranks = distributed.start()
    code = train(command, ranks, stop)
    distributed.finish(ranks)
    return code


if __name__ == "__main__":
    end(run)
