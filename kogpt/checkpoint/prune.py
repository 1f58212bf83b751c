"""Remove old checkpoints of a run, and what killed processes left behind. In: a run folder."""

import shutil
from pathlib import Path

from kogpt.checkpoint.layout import pointed, step_folders


def prune(run: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` and the best."""
    best = pointed(run, "best")
    latest = pointed(run, "latest")
    # Damaged checkpoints that were skipped on resume may have later steps. They do not count.
    good = [folder for folder in step_folders(run) if latest is None or folder.name <= latest]
    for folder in good[keep:]:
        if folder.name != best:
            # Rename it first, so that a kill in the middle leaves no damaged checkpoint.
            doomed = folder.with_name(f".{folder.name}.pruned")
            folder.rename(doomed)
            shutil.rmtree(doomed)


def remove_strays(run: Path) -> None:
    """Remove unfinished and half-removed checkpoints of killed processes. Call it only while holding the run's lock."""
    for stray in (run / "checkpoints").glob(".step-*"):
        whole = stray.with_name(stray.name.lstrip(".").partition(".")[0])
        if stray.suffix == ".old" and not whole.exists():  # killed between the two renames in `publish`
            stray.rename(whole)
        else:
            shutil.rmtree(stray)
