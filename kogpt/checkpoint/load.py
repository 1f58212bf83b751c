"""Load a trained model for inference. In: a run or step folder. Out: `LoadedRun`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kogpt.checkpoint.choose import Wish, choose
from kogpt.checkpoint.layout import CONFIG, MODEL, tokenizer_folder
from kogpt.checkpoint.reader import CheckpointReader
from kogpt.model import registry
from kogpt.model.decoder import Decoder


@dataclass(frozen=True)
class LoadedRun:
    """A trained model and its tokenizer folder. `info` is the checkpoint's config.json."""

    model: Decoder
    tokenizer_folder: Path
    info: dict[str, Any]

    @property
    def talks(self) -> bool:
        """Whether it was trained on conversations."""
        return self.info.get("kind") == "conversations"


def load_for_inference(
    run_or_step_folder: Path, device: str | torch.device = "cpu", checkpoint: Wish = None
) -> LoadedRun:
    """Load a checkpoint of a run, or the given step folder. The model is in fp32 and eval mode.

    `checkpoint` is "best" (by validation loss), "last", or the number of a step; by default the best where there was
    validation. Which one it is is logged. Raises `UserError` if there is no such checkpoint, or none that is usable.
    """
    return load_step(choose(Path(run_or_step_folder), checkpoint, (MODEL, CONFIG)), device)


def load_step(step: Path, device: str | torch.device = "cpu") -> LoadedRun:
    """Load a step folder that `choose` gave."""
    reader = CheckpointReader(step, (MODEL,))
    model = registry.build(registry.config_from_dict(reader.config["model"]))
    state = model.state_dict()
    if differing := state.keys() ^ reader.shapes.keys():
        raise KeyError(f"{step} and the model differ in {', '.join(sorted(differing))}")
    for name, value in state.items():
        value.copy_(reader.weight(name))
    return LoadedRun(model.to(device).eval(), tokenizer_folder(step), reader.config)
