"""Whole tensors in and out of a DeepSpeed engine, whatever its ZeRO stage, precision and number of ranks.

ZeRO cuts the fp32 weights and Adam's two moments into shards. This module puts them together one parameter
at a time (all ranks call, all get the whole tensor) and takes them apart again, so that a checkpoint knows
nothing of shards. Memory: one parameter at a time. Source of the shards' layout: deepspeed.utils.tensor_fragment.

    stage 0   whole already: the model's own parameters in fp32, else a master copy of each
    1 and 2   flat partitions, linked to each parameter by `_hp_mapping`
    stage 3   partitions of each parameter, padded to a multiple of the ranks
"""

from typing import Any

import torch
import torch.nn.functional as F
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor

from kogpt.checkpoint.layout import MOMENTS


class WholeState:
    """The fp32 weights, moments and step count of Adam behind a DeepSpeed engine.

    `adam` is the torch optimizer that was handed to `deepspeed.initialize`.
    """

    def __init__(self, engine: Any, adam: torch.optim.Optimizer) -> None:
        self.adam = adam
        self.optimizer = engine.optimizer
        self.parameters: dict[str, Any] = {
            name.removeprefix("_orig_mod."): parameter for name, parameter in engine.module.named_parameters()
        }
        self._masters = self._find_masters()
        self._create_moments()

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole shape, also where ZeRO 3 has left an empty tensor in the model."""
        parameter = self.parameters[name]
        return tuple(getattr(parameter, "ds_shape", parameter.shape))

    def get(self, name: str, moment: str | None = None) -> Tensor:
        """The whole fp32 weight, or one of `MOMENTS`; a collective call."""
        parameter = self.parameters[name]
        if self._is_whole(parameter):
            return self._whole(parameter, moment)
        if moment is None:
            return safe_get_full_fp32_param(parameter)
        return safe_get_full_optimizer_state(parameter, moment)

    def set(self, name: str, value: Tensor, moment: str | None = None) -> None:
        """Take this rank's share of the whole fp32 `value`. The half-precision copy is not touched."""
        parameter = self.parameters[name]
        if hasattr(parameter, "ds_id"):
            share = parameter.ds_tensor.numel()
            padded = F.pad(value.flatten(), (0, share * torch.distributed.get_world_size() - value.numel()))
            mine = padded.narrow(0, share * torch.distributed.get_rank(), share)
            if moment is None:
                safe_set_local_fp32_param(parameter, mine)
            else:
                safe_set_local_optimizer_state(parameter, mine, moment)
        elif self._is_whole(parameter):
            self._whole(parameter, moment).copy_(value)
        else:
            parameter.set_full_hp_param(value, moment)

    @property
    def adam_step(self) -> int:
        """Updates Adam has made: the training step less the skipped ones."""
        return int(next(iter(self.adam.state.values()))["step"].item())

    @adam_step.setter
    def adam_step(self, step: int) -> None:
        for state in self.adam.state.values():
            state["step"].fill_(step)

    def _is_whole(self, parameter: Any) -> bool:
        return not hasattr(parameter, "ds_id") and not hasattr(parameter, "_hp_mapping")

    def _whole(self, parameter: Any, moment: str | None) -> Tensor:
        master = self._masters.get(id(parameter), parameter)
        return master.data if moment is None else self.adam.state[master][moment]

    def _find_masters(self) -> dict[int, Tensor]:
        """Stage 0 in half precision: the fp32 copy of each parameter, by the parameter's id()."""
        halves, wholes = getattr(self.optimizer, "fp16_groups", None), getattr(self.optimizer, "fp32_groups", None)
        if halves is None or wholes is None:
            return {}
        return {
            id(half): whole
            for group, masters in zip(halves, wholes, strict=True)
            for half, whole in zip(group, masters, strict=True)
        }

    def _create_moments(self) -> None:
        """Make the state that torch would make at the first update, so that it can be set before one."""
        shards = getattr(self.optimizer, "fp32_partitioned_groups_flat", None)  # stage 3 hides them from Adam
        if shards is None:
            shards = [shard for group in self.adam.param_groups for shard in group["params"]]
        fused = self.adam.defaults["fused"]
        for shard in shards:
            if not self.adam.state[shard]:
                step = torch.zeros((), dtype=torch.float32, device=shard.device if fused else "cpu")
                zeros = {moment: torch.zeros_like(shard) for moment in MOMENTS}
                self.adam.state[shard] = {"step": step, **zeros}
        if hasattr(self.optimizer, "_lazy_init_hp_params_optimizer_state"):
            self.optimizer._lazy_init_hp_params_optimizer_state()
        self.adam_step = 0  # the bf16 optimizer of stage 0 has already made an (empty) update
