"""Load a trained model for inference. In: a run or step folder. Out: `LoadedRun`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kogpt.checkpoint.layout import CONFIG, MANIFEST, MODEL, step_folders
from kogpt.checkpoint.reader import CheckpointReader
from kogpt.checkpoint.verify import newest_good, verify
from kogpt.common.errors import UserError
from kogpt.model import registry
from kogpt.model.decoder import Decoder


@dataclass(frozen=True)
class LoadedRun:
    """A trained model and its tokenizer folder. `info` is the checkpoint's config.json."""

    model: Decoder
    tokenizer_folder: Path
    info: dict[str, Any]


def load_for_inference(run_or_step_folder: Path, device: str | torch.device = "cpu") -> LoadedRun:
    """Load the newest intact checkpoint of a run, or the given step folder. The model is in fp32 and eval mode.

    Raises `UserError` if there is no usable checkpoint.
    """
    folder = Path(run_or_step_folder)
    needed = (MODEL, CONFIG)
    if (folder / MANIFEST).exists() and (folder / CONFIG).exists():
        if fault := verify(folder, needed):
            raise UserError(f"the checkpoint {folder} is damaged: {fault}; give the run folder to use an earlier one.")
        step = folder
    else:
        found = newest_good(folder, needed)
        if found is None:
            faults = [f"{broken.name}: {verify(broken, needed)}" for broken in step_folders(folder)]
            raise UserError(
                f"{folder} holds no usable checkpoint ({'; '.join(faults) or 'no checkpoints/step-* folder'}); "
                "give the --out folder of a training run or one of its step folders."
            )
        step = found
    reader = CheckpointReader(step, (MODEL,))
    model = registry.build(registry.config_from_dict(reader.config["model"]))
    state = model.state_dict()
    if differing := state.keys() ^ reader.shapes.keys():
        raise KeyError(f"{step} and the model differ in {', '.join(sorted(differing))}")
    for name, value in state.items():
        value.copy_(reader.weight(name))
    return LoadedRun(model.to(device).eval(), step.resolve().parent.parent / "tokenizer", reader.config)
