"""Checkpoints: one format for every ZeRO stage, precision and number of ranks. In and out: a folder per step.

    RUN/checkpoints/step-00000025/
        model.safetensors      the fp32 weights under the model's own names; a tied head once
        optimizer.safetensors  Adam's moments, `exp_avg.NAME` and `exp_avg_sq.NAME`, fp32
        config.json            {"model": {"arch", and its fields}, "step", "corpus", ...}: what inference needs
        state.json             what training needs besides: position, Adam's step, loss scale, best so far
        manifest.json          sha256 and size of each file, written last
    RUN/checkpoints/latest, best   text files that name a step folder

12 bytes per parameter. Tensors are written as they are gathered, one parameter in memory at a time, by rank 0.
The folder is made under a temporary name and renamed when it is whole and on disk; `latest` moves after that. So
a kill at any instant leaves the checkpoint before in place, and what has the right name but not the right bytes
(`verify`) was altered later.

There is no random state in it: dropout's is a function of (seed, step, rank), the data's order of (seed, position).
"""

from pathlib import Path

from kogpt.common.files import atomic_write

FORMAT, VERSION = "kogpt-checkpoint", 1
MODEL, OPTIMIZER, CONFIG, STATE, MANIFEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "config.json",
    "state.json",
    "manifest.json",
)
FILES = (MODEL, OPTIMIZER, CONFIG, STATE)
MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's two moments, by torch's names."""


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def step_folders(run: Path) -> list[Path]:
    """The step folders of a run, newest first."""
    return sorted((run / "checkpoints").glob("step-" + "[0-9]" * 8), reverse=True)


def point(folder: Path, pointer: str) -> None:
    """Make the text file `latest` or `best` name a step folder."""
    with atomic_write(folder.parent / pointer) as file:
        file.write(f"{folder.name}\n".encode())


def pointed(run: Path, pointer: str) -> str | None:
    """The name in `latest` or `best`, or None."""
    path = run / "checkpoints" / pointer
    return path.read_text().strip() if path.exists() else None
