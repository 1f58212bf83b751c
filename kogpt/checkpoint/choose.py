"""Choose a checkpoint of a run. In: a run or step folder, and which one is wanted. Out: an intact step folder.

"best" is the checkpoint with the lowest validation loss, "last" the newest, and a number the one of that step. Without
a wish it is the best where there was validation, and the last where there was none. Where there are several, the choice
is logged.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from kogpt.checkpoint.layout import CONFIG, MANIFEST, pointed, step_folder, step_folders
from kogpt.checkpoint.verify import newest_good, verify
from kogpt.common.errors import UserError

log = logging.getLogger(__name__)

Wish = str | int | None
""" "best", "last", the number of a step, or None for the default."""


def choose(folder: Path, wish: Wish = None, kinds: Iterable[str] | None = None) -> Path:
    """The step folder to use of a run, or `folder` itself if it is one.

    `kinds` limits the check of the checksums to files of these kinds (kogpt.checkpoint.layout). A damaged checkpoint
    that was not asked for is skipped with a warning.

    Raises `UserError` if the checkpoint does not exist or is damaged, and for a wish if `folder` is a step folder.
    """
    kinds = list(kinds) if kinds else None
    if (folder / MANIFEST).exists() and (folder / CONFIG).exists():
        if wish is not None:
            raise UserError(f"{folder} is a single checkpoint already; name the run folder with --checkpoint {wish}.")
        if fault := verify(folder, kinds):
            raise UserError(f"the checkpoint {folder} is damaged: {fault}; give the run folder to use an earlier one.")
        return folder
    if wish in (None, "best") and (name := pointed(folder, "best")) is not None:
        best = folder / "checkpoints" / name
        if (fault := verify(best, kinds)) is None:
            _say(best, f"the best by validation loss{_and_the_last(folder, best)}")
            return best
        if wish == "best":
            raise UserError(f"the best checkpoint {best} is damaged: {fault}; use --checkpoint last.")
        log.warning(f"Skipping the best checkpoint {best}, which is damaged: {fault}.")
    elif wish == "best":
        raise UserError(f"{folder} has no best checkpoint, as none was validated; use --checkpoint last.")
    if wish not in (None, "best", "last"):
        return _of_step(folder, int(wish), kinds)
    newest = newest_good(folder, kinds)
    if newest is None:
        faults = [f"{broken.name}: {verify(broken, kinds)}" for broken in step_folders(folder)]
        raise UserError(
            f"{folder} holds no usable checkpoint ({'; '.join(faults) or 'no checkpoints/step-* folder'}); "
            "give the --out folder of a training run or one of its step folders."
        )
    _say(newest, "the last")
    return newest


def _of_step(run: Path, step: int, kinds: list[str] | None) -> Path:
    found = step_folder(run, step)
    if not found.is_dir():
        steps = ", ".join(str(int(folder.name.removeprefix("step-"))) for folder in reversed(step_folders(run)))
        raise UserError(f"--checkpoint {step}: {run} has no checkpoint of this step, only of {steps or 'none'}.")
    if fault := verify(found, kinds):
        raise UserError(f"--checkpoint {step}: {found} is damaged: {fault}; use another.")
    return found


def _and_the_last(run: Path, best: Path) -> str:
    newest = step_folders(run)[0]
    return "" if newest == best else f" (the last is {newest.name}; --checkpoint last takes it)"


def _say(folder: Path, which: str) -> None:
    if len(step_folders(folder.parent.parent)) > 1:
        log.info(f"Using the checkpoint {folder.name}, {which}.")
