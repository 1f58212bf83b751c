"""Which checkpoints of a run stay: the newest few and the best; and what a kill left half-made goes."""

import shutil
from pathlib import Path

from kogpt.checkpoint.layout import pointed, step_folders


def prune(run: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` and the best."""
    best = pointed(run, "best")
    latest = pointed(run, "latest")
    # Broken ones that were passed over at the start may bear later steps: they count for nothing.
    good = [folder for folder in step_folders(run) if latest is None or folder.name <= latest]
    for folder in good[keep:]:
        if folder.name != best:
            # Under a temporary name first: a kill in the middle leaves no broken checkpoint.
            doomed = folder.with_name(f".{folder.name}.pruned")
            folder.rename(doomed)
            shutil.rmtree(doomed)


def remove_strays(run: Path) -> None:
    """Remove what killed trainings left half-made or half-removed. Only the training that holds the run calls this."""
    for stray in (run / "checkpoints").glob(".step-*"):
        whole = stray.with_name(stray.name.lstrip(".").partition(".")[0])
        if stray.suffix == ".old" and not whole.exists():  # a kill between two renames of `publish`
            stray.rename(whole)
        else:
            shutil.rmtree(stray)
