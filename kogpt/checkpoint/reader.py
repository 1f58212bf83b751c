"""Reads a checkpoint, one tensor at a time."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from kogpt.checkpoint.layout import CONFIG, MODEL, OPTIMIZER, STATE


class CheckpointReader:
    """A checkpoint's JSON and, one at a time, its tensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
        self.state: dict[str, Any] = json.loads((folder / STATE).read_bytes())
        self._model = safe_open(folder / MODEL, framework="pt")
        self._optimizer = safe_open(folder / OPTIMIZER, framework="pt")

    def weight(self, name: str) -> Tensor:
        """A whole fp32 weight."""
        return self._model.get_tensor(name)

    def moment(self, moment: str, name: str) -> Tensor:
        """A whole fp32 moment of Adam (`exp_avg` or `exp_avg_sq`)."""
        return self._optimizer.get_tensor(f"{moment}.{name}")
