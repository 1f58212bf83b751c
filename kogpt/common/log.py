"""Messages while a command runs: standard `logging`, set up once by the entry point.

In: records of `logging.getLogger(__name__)` in any module of `kogpt` or `preprocess`. Out: the bare text of each on its
own line, above a progress bar. Rank 0 logs from INFO on; other ranks log only errors, prefixed with their rank. Without
set-up (in a notebook or a test) Python's defaults apply: warnings on stderr.
"""

import io
import logging
import sys
from typing import Literal

from tqdm import tqdm

_ROOMS = ("kogpt", "preprocess")
Stream = Literal["stdout", "stderr"]


def set_up_logging(rank: int = 0, stream: Stream = "stderr") -> None:
    """Send the project's log to `stream`, or to stderr while a progress bar is shown there.

    Also lets standard output and error replace what their encoding does not have.
    """
    for output in (sys.stdout, sys.stderr):
        # A terminal of another encoding (cp949) shows "?" for an emoji instead of ending the command.
        if isinstance(output, io.TextIOWrapper) and output.errors in ("strict", "surrogateescape"):
            output.reconfigure(errors="replace")
    handler = _Lines(stream)
    handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"rank {rank}: %(message)s"))
    for room in _ROOMS:
        logger = logging.getLogger(room)
        logger.handlers = [other for other in logger.handlers if not isinstance(other, _Lines)] + [handler]
        logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)


class _Lines(logging.Handler):
    """Writes lines above tqdm's bars. The stream is looked up for each line, because it may be replaced."""

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
