"""The architectures by name. In: a checkpoint's "model" object, or a configuration. Out: a configuration, a model.

A new architecture is a file in this folder, an entry in `ARCHITECTURES`, and an adapter in kogpt.hub.
"""

from typing import Any, NamedTuple

from kogpt.common.errors import UserError
from kogpt.model.config import ModelConfig
from kogpt.model.decoder import Decoder
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.model.qwen3 import Qwen3, Qwen3Config


class Architecture(NamedTuple):
    """An architecture's configuration and model classes."""

    config: type[ModelConfig]
    model: type[Decoder]


ARCHITECTURES: dict[str, Architecture] = {
    GPTConfig.arch: Architecture(GPTConfig, GPT),
    Qwen3Config.arch: Architecture(Qwen3Config, Qwen3),
}


def config_from_dict(stored: dict[str, Any]) -> ModelConfig:
    """The configuration that was stored by `ModelConfig.to_dict`. Version 0.1 stored no "arch"; it means GPT-2.

    Raises `UserError` if this version lacks the architecture or cannot run a model with these fields.
    """
    fields = dict(stored)
    name = fields.pop("arch", GPTConfig.arch)
    if name not in ARCHITECTURES:
        raise UserError(
            f'the model\'s architecture is "{name}", but this version of kogpt supports only '
            f"{', '.join(ARCHITECTURES)}; use the version that wrote it."
        )
    try:
        return ARCHITECTURES[name].config.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"the model's configuration cannot be used: {error}.") from None


def model_class(config: ModelConfig) -> type[Decoder]:
    """The model class of a configuration."""
    return ARCHITECTURES[config.arch].model


def build(config: ModelConfig) -> Decoder:
    """A new model. Its weights are drawn from torch's global random generator."""
    return model_class(config)(config)
