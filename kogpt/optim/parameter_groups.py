"""Parameter groups of the optimizer. In: a model. Out: groups in the form that torch.optim takes."""

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and embeddings with `weight_decay`; biases and norms without."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if _dimensions(p) >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if _dimensions(p) < 2], "weight_decay": 0.0},
    ]


def _dimensions(parameter: nn.Parameter) -> int:
    """ZeRO 3 leaves an empty tensor in the model, and the shape in `ds_shape`."""
    return len(getattr(parameter, "ds_shape", parameter.shape))
