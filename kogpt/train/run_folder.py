"""The run folder: lock it for one training, and find out whether all ranks share it. In: its path."""

import logging
import time
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from kogpt.checkpoint.prune import remove_strays
from kogpt.common.errors import UserError
from kogpt.common.files import LOCK
from kogpt.train.distributed import Ranks, broadcast_object, on_first, reduce_max

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
"""A network file system may show a new file to other nodes a little later."""


def hold(run: Path) -> FileLock:
    """Lock the run folder for this process, on rank 0. Raises `UserError` if another training has it.

    The kernel releases the lock when the process ends in any way. Leftovers of killed trainings are removed.
    """
    lock = FileLock(run / LOCK)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:  # an OSError, too
        raise UserError(
            f"The run folder {run} is in use by another training; wait until it ends, or name another one."
        ) from None
    except NotImplementedError:
        log.warning(f"The file system of {run} has no locks; make sure that no other training writes there.")
    except OSError as error:
        raise UserError(f"The run folder {run} cannot be written: {error.strerror}; name another one.") from None
    remove_strays(run)
    return lock


def agree_on_token() -> str:
    """A unique token for temporary names of this training, the same on all ranks."""
    return broadcast_object(uuid.uuid4().hex[:12])


def is_shared(run: Path, ranks: Ranks, token: str) -> bool:
    """Whether all ranks see what rank 0 writes in `run`, which is made if need be."""
    mark = run / f".shared-{token}"
    on_first(ranks, lambda: run.mkdir(parents=True, exist_ok=True))
    on_first(ranks, mark.touch)
    end = time.monotonic() + _LOOK_SECONDS
    while not (seen := mark.exists()) and time.monotonic() < end:
        time.sleep(0.1)
    missed = bool(reduce_max(ranks, not seen)[0])
    on_first(ranks, mark.unlink)
    if missed:
        log.warning(f"The nodes do not share {run}: rank 0 writes the checkpoints, and training waits meanwhile.")
    return not missed
