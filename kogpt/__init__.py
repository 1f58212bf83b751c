"""kogpt: a Korean GPT from scratch, from token corpus to a model that talks.

>>> model = kogpt.load("runs/small")
>>> model.generate("대한민국은", max_new_tokens=50)
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kogpt.generate.model import Model

__version__ = "0.2.0"
"""The one place of the version: pyproject.toml reads it here."""

__all__ = ["__version__", "load"]


def load(run: str | Path, device: str | None = None) -> "Model":
    """Load the newest intact checkpoint of a run folder (or the step folder given), to generate, encode and decode.

    `device` is cpu, cuda, cuda:1, ...; by default a GPU if there is one. See kogpt.generate.model.Model.
    """
    from kogpt.generate.model import Model  # torch is loaded here, so that `import kogpt` is fast

    return Model(run, device)
