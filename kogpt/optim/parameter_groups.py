"""Parameter groups of the optimizer. In: a model. Out: groups in the form that torch.optim takes."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from kogpt.model import registry
from kogpt.model.config import ModelConfig
from kogpt.model.decoder import Decoder
from kogpt.optim.muon import cost


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices and embeddings with `weight_decay`; biases and norms without."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if _dimensions(p) >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if _dimensions(p) < 2], "weight_decay": 0.0},
    ]


def hidden_matrices(model: Decoder) -> dict[str, nn.Parameter]:
    """The matrices inside the blocks, by name: neither embeddings nor the head, which lie outside."""
    inside = {id(p) for p in model.blocks.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) in inside and _dimensions(p) == 2}


@cache
def hidden_count(config: ModelConfig) -> int:
    """The number of parameters in the hidden matrices of a model."""
    return config.n_layer * sum(parameter.numel() for parameter in hidden_matrices(_one_block(config)).values())


@cache
def update_flops(config: ModelConfig) -> int:
    """FLOPs of Muon's update in each step. A matrix of several is orthogonalized in parts."""
    model, total = _one_block(config), 0
    for name, matrix in hidden_matrices(model).items():
        parts = next((count for end, count in model.STACKED.items() if name.endswith(end)), 1)
        total += parts * cost(matrix.size(0) // parts, matrix.size(1))
    return config.n_layer * total


def _one_block(config: ModelConfig) -> Decoder:
    """The model with one of its blocks, which are all alike, and without values."""
    with torch.device("meta"):
        return registry.build(replace(config, n_layer=1))


def muon_groups(model: Decoder, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for Muon: the hidden matrices with `weight_decay`; embeddings, head, biases, and norms without."""
    hidden = hidden_matrices(model).values()
    rest = {id(p) for p in model.parameters()} - {id(p) for p in hidden}
    return [
        {"params": list(hidden), "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if id(p) in rest], "weight_decay": 0.0},
    ]


def _dimensions(parameter: nn.Parameter) -> int:
    """ZeRO 3 leaves an empty tensor in the model, and the shape in `ds_shape`."""
    return len(getattr(parameter, "ds_shape", parameter.shape))
