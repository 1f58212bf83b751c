"""The adapters between our architectures and `transformers`, one per architecture in `kogpt/hub/NAME.py`."""

from typing import Any, Protocol

from torch import Tensor

from kogpt.common.errors import UserError
from kogpt.hub.gpt2 import GPT2Adapter
from kogpt.hub.qwen3 import Qwen3Adapter
from kogpt.model.config import ModelConfig


class Adapter(Protocol):
    """What export and import need to know about an architecture."""

    title: str
    """Its name in a model card."""
    model_type: str
    """What `transformers` calls it in config.json."""

    def export_config(self, config: ModelConfig, special_tokens: dict[str, int]) -> dict[str, Any]:
        """The config.json for `transformers`. `special_tokens` are bos_token_id and the like."""
        ...

    def export_weights(self, state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Our state_dict with the names and layout of `transformers`."""
        ...

    def gguf_fields(self, config: ModelConfig) -> dict[str, int | float]:
        """What llama.cpp has to know of the configuration: the keys of GGUF without the architecture's name."""
        ...

    def gguf_weights(self, state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Our state_dict with the names of `transformers`, every matrix as [out, in], float32."""
        ...

    def import_config(self, config: dict[str, Any], state: dict[str, Tensor], place: str) -> ModelConfig:
        """Our configuration for a config.json. A `UserError` naming `place` if the model computes something else."""
        ...

    def import_weights(self, state: dict[str, Tensor], config: ModelConfig, place: str) -> dict[str, Tensor]:
        """Our state_dict in float32 from tensors of `transformers`. Raises `UserError` if one is missing."""
        ...


ADAPTERS: dict[str, Adapter] = {"gpt2": GPT2Adapter(), "qwen3": Qwen3Adapter()}
"""By the name of the architecture in kogpt.model.registry."""


def adapter_for(config: ModelConfig) -> Adapter:
    """The adapter of one of our models."""
    if config.arch not in ADAPTERS:
        raise UserError(f"models of architecture {config.arch} cannot be exported; kogpt.hub has no adapter for them.")
    return ADAPTERS[config.arch]


def adapter_for_type(model_type: object, place: str) -> Adapter:
    """The adapter for config.json's `model_type`."""
    for adapter in ADAPTERS.values():
        if adapter.model_type == model_type:
            return adapter
    known = ", ".join(adapter.model_type for adapter in ADAPTERS.values())
    raise UserError(f"{place} is of type {model_type}, which cannot be imported; supported: {known}.")
