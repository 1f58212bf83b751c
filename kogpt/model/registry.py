"""The architectures by name. In: a checkpoint's "model" object, or a configuration. Out: a configuration, a model.

A new architecture is a file in this folder, an entry in `ARCHITECTURES`, and an adapter in kogpt.hub.
"""

from typing import Any, NamedTuple

from kogpt.common.errors import UserError
from kogpt.model.config import ModelConfig
from kogpt.model.decoder import Decoder
from kogpt.model.gpt2 import GPT, GPTConfig


class Architecture(NamedTuple):
    """The two classes of an architecture."""

    config: type[ModelConfig]
    model: type[Decoder]


ARCHITECTURES: dict[str, Architecture] = {GPTConfig.arch: Architecture(GPTConfig, GPT)}


def config_from_dict(stored: dict[str, Any]) -> ModelConfig:
    """The configuration that `ModelConfig.to_dict` gave; without "arch", as version 0.1 wrote it, it is GPT-2's.

    Raises `UserError` where this version has no such architecture or cannot compute what the fields ask for.
    """
    fields = dict(stored)
    name = fields.pop("arch", GPTConfig.arch)
    if name not in ARCHITECTURES:
        raise UserError(
            f'the model\'s architecture is "{name}", but this version of kogpt knows only '
            f"{', '.join(ARCHITECTURES)}; use the version that wrote it."
        )
    try:
        return ARCHITECTURES[name].config.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"the model's configuration cannot be used: {error}.") from None


def model_class(config: ModelConfig) -> type[Decoder]:
    """The class of the model that `config` describes."""
    return ARCHITECTURES[config.arch].model


def build(config: ModelConfig) -> Decoder:
    """A new model, initialised by torch's global generator."""
    return model_class(config)(config)
