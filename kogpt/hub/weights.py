"""Read configuration and weights from a folder of `transformers`: config.json, *.safetensors or pytorch_model*.bin."""

import json
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kogpt.common.errors import UserError
from kogpt.hub.adapters import adapter_for_type
from kogpt.model.config import ModelConfig


def import_model(folder: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and weights of a checkpoint on disk, ready for load_state_dict.

    Models that compute something else than ours are refused. Dropout is 0: it is a setting of the next training.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json; name the folder of a checkpoint that transformers saved.")
    config = json.loads((folder / "config.json").read_bytes())
    adapter = adapter_for_type(config.get("model_type"), f"{folder}/config.json")
    state = read_weights(folder)
    shape = adapter.import_config(config, state, str(folder))
    return shape, adapter.import_weights(state, shape, str(folder))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, in one file or in shards."""
    state: dict[str, Tensor] = {}
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UserError(f"{folder} has no model.safetensors and no pytorch_model.bin; download it again.")
    for file in files:
        try:
            state |= (
                load_file(file)
                if file.suffix == ".safetensors"
                else torch.load(file, map_location="cpu", weights_only=True)
            )
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise UserError(f"{file} cannot be read ({type(error).__name__}); download it again.") from None
    return state
