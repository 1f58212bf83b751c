"""What the user reads while a command runs: standard `logging`, set up once by the entry point.

In: records of `logging.getLogger(__name__)` in any module of `kogpt` or `preprocess`. Out: the bare text of each on a
line of its own, above a progress bar and never through it. Rank 0 logs from INFO on; other ranks log errors only, with
their rank in front. Where nothing is set up (a notebook, a test) Python's defaults hold: warnings on stderr.
"""

import logging
import sys
from typing import Literal

from tqdm import tqdm

_ROOMS = ("kogpt", "preprocess")
Stream = Literal["stdout", "stderr"]


def set_up_logging(rank: int = 0, stream: Stream = "stderr") -> None:
    """Send what the project logs to `stream` from now on; while a progress bar is shown, to stderr as the bar."""
    handler = _Lines(stream)
    handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"rank {rank}: %(message)s"))
    for room in _ROOMS:
        logger = logging.getLogger(room)
        logger.handlers = [other for other in logger.handlers if not isinstance(other, _Lines)] + [handler]
        logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)


class _Lines(logging.Handler):
    """Writes lines between the drawings of tqdm's bars; the stream is looked up for each, since it may be replaced."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        beside_a_bar = len(getattr(tqdm, "_instances", ())) > 0
        try:
            file = sys.stderr if beside_a_bar else getattr(sys, self._stream)
            tqdm.write(self.format(record), file=file)
            file.flush()
        except Exception:
            self.handleError(record)
