"""The run folder: held by one training at a time, and the same folder for all ranks or not. In: its path."""

import logging
import time
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from kogpt.checkpoint.prune import remove_strays
from kogpt.common.errors import UserError
from kogpt.train.distributed import Ranks, broadcast_object, on_first, reduce_max

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
"""A network file system may show a new file to other nodes a little later."""


def hold(run: Path) -> FileLock:
    """Take the run folder for this process, on rank 0, or raise `UserError` where another training has it.

    The kernel lets go of it when the process ends, however it ends. What killed trainings left half-made is removed.
    """
    lock = FileLock(run / ".lock")
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:  # an OSError, too
        raise UserError(
            f"--out {run} is in use by another training; wait for its end, or name another --out."
        ) from None
    except NotImplementedError:
        log.warning(f"the file system of {run} knows no locks: see to it that no other training writes there.")
    except OSError as error:
        raise UserError(f"--out {run} cannot be written: {error.strerror}; name another folder.") from None
    remove_strays(run)
    return lock


def agree_on_token() -> str:
    """A word for temporary names that no other training has; the same on all ranks."""
    return broadcast_object(uuid.uuid4().hex[:12])


def is_shared(run: Path, ranks: Ranks, token: str) -> bool:
    """Whether all ranks see what rank 0 writes in `run`."""
    mark = run / f".shared-{token}"
    on_first(ranks, mark.touch)
    end = time.monotonic() + _LOOK_SECONDS
    while not (seen := mark.exists()) and time.monotonic() < end:
        time.sleep(0.1)
    missed = bool(reduce_max(ranks, not seen)[0])
    on_first(ranks, mark.unlink)
    if missed:
        log.warning(f"the nodes do not share {run}: rank 0 writes the checkpoints, and training waits for it.")
    return not missed
