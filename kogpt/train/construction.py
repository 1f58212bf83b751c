"""Build the model one layer at a time. In: its configuration, the plan, a checkpoint. Out: the model for DeepSpeed.

The layers are made on torch's meta device, which holds no values. Then each layer's parameters are created on the CPU
in fp32, filled (from the checkpoint, or new and the same on all ranks), and, at ZeRO stage 3, divided between the ranks
before the next layer is filled. So no rank ever holds the whole model in fp32 there: the most is one layer, which is
the vocabulary's matrix in most models. At the other stages every rank needs all weights anyway.
"""

import torch
from torch import nn

from kogpt.model import registry
from kogpt.model.config import ModelConfig
from kogpt.model.decoder import Decoder
from kogpt.train.deepspeed_config import EnginePlan
from kogpt.train.distributed import Ranks, broadcast
from kogpt.train.restorer import Restorer

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def build(config: ModelConfig, plan: EnginePlan, ranks: Ranks, checkpoint: Restorer | None) -> Decoder:
    """The model with its weights. All ranks must call it, with the same state of torch's global generator."""
    with torch.device("meta"):
        model = registry.build(config)
    for prefix, layer in model.named_modules():
        filled = nn.ParameterList()
        for name, empty in list(layer.named_parameters(recurse=False)):
            whole = f"{prefix}.{name}" if prefix else name
            value = _filled(model, whole, empty, ranks, checkpoint)
            if plan.stage == 3:
                value = value.to(_DTYPES.get(plan.precision, torch.float32))
            parameter = nn.Parameter(value)
            layer.register_parameter(name, parameter)
            filled.append(parameter)
        if plan.stage == 3 and len(filled):
            _divide(filled, plan)
    return model


@torch.no_grad()
def _filled(model: Decoder, name: str, empty: nn.Parameter, ranks: Ranks, checkpoint: Restorer | None) -> torch.Tensor:
    """A new weight, fp32 on the CPU: the checkpoint's, or rank 0's."""
    value = torch.empty(empty.shape, dtype=torch.float32)
    model.initialise(name, value)
    if checkpoint is not None:
        value.copy_(checkpoint.weight(name))
    elif ranks.world_size > 1:
        value.copy_(broadcast(value.to(ranks.device)))
    return value


def _divide(parameters: nn.ParameterList, plan: EnginePlan) -> None:
    """Leave each rank its part of these parameters (ZeRO 3). DeepSpeed expects them in the precision of training."""
    import deepspeed

    dtype = _DTYPES.get(plan.precision, torch.float32)
    deepspeed.zero.Init(module=parameters, config_dict_or_path=plan.engine, dtype=dtype)
