"""The ranks of the demo, which do both of its trainings: `deepspeed launch/demo_ranks.py`.

To start ranks takes as long as the fine-tuning. These start once, beside the preprocessing, which often waits.

In: standard input, a socket of launch/demo.py, has a line for each training: the words after `launch/train.py`, as
JSON. Out: run folders, and in the socket the exit status of each. When the demo closes the socket, or dies, they end.
"""

import json
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
    """Train until nothing more is asked for, or a training does not finish; the exit status."""
    distributed.prepare_environment()
    set_up_logging(int(os.environ["RANK"]), "stdout")
    ranks = distributed.start()
    code = 0
    while code == 0:
        distributed.set_timeouts(distributed.PATIENT_SECONDS)
        line = distributed.broadcast_object(sys.stdin.readline() if ranks.first else None)
        if not line:
            break
        code = train(read(json.loads(line)), ranks, Stop())
        if ranks.first:
            os.write(sys.stdin.fileno(), b"%d\n" % code)
    distributed.finish(ranks)
    return code


if __name__ == "__main__":
    end(run)
