"""kogpt: train a Korean GPT from scratch, and use it from Python.

>>> model = kogpt.load("runs/small")
>>> model.generate("대한민국은", max_new_tokens=50)
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kogpt.generate.model import Model

__version__ = "0.2.0"
"""The version. pyproject.toml reads it from here."""

__all__ = ["__version__", "load", "watch"]


def load(run: str | Path, device: str | None = None, checkpoint: str | int | None = None) -> "Model":
    """Load a checkpoint of a run folder, or the given step folder, to generate, encode, and decode.

    `device` is cpu, cuda, cuda:1, ...; by default a GPU if there is one. `checkpoint` is "best", "last", or the number
    of a step; by default the best where there was validation. See kogpt.generate.model.Model.
    """
    from kogpt.generate.model import Model  # torch is loaded here, so that `import kogpt` is fast

    return Model(run, device, checkpoint)


def watch(run: str | Path) -> None:
    """Show the curves of a training that runs in another process, until it ends: a picture in a notebook, else a bar.

    `run` is its --out. A training that has only just been started counts. Raises `kogpt.common.errors.UserError` if
    there is none and none has recorded a step.
    """
    from kogpt.tracking.watch import watch

    watch(run)
