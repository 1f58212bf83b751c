"""Get and set this rank's part of the fp32 weights and optimizer slots of a DeepSpeed engine.

ZeRO partitions them between the ranks. Here every part has the same form, whatever the ZeRO stage, precision, and
number of ranks: the first element, and a flat fp32 tensor of one parameter or slot. Checkpoints therefore need no
knowledge of ZeRO. Nothing is sent between ranks. DeepSpeed's layout is from deepspeed.utils.tensor_fragment:

    stage 0   all ranks hold everything: the model's parameters in fp32, or else a master copy of each
    1 and 2   a contiguous range of each parameter group, linked to its parameters by `_hp_mapping`
    stage 3   a contiguous range of each parameter, padded to a multiple of the number of ranks

A slot is any tensor of the optimizer's state that has the parameter's shape (AdamW: exp_avg, exp_avg_sq). `step`, the
number of updates, is the same for all parameters. It is None if the optimizer does not count.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kogpt.checkpoint.shards import Shard, numel_of


class FullState:
    """This rank's part of the state. `optimizer` is the torch optimizer given to `deepspeed.initialize`."""

    def __init__(self, engine: Any, optimizer: torch.optim.Optimizer, rank: int, world_size: int) -> None:
        self.optimizer, self.rank, self.world_size = optimizer, rank, world_size
        self.zero = engine.optimizer
        self.parameters: dict[str, Any] = {
            name.removeprefix("_orig_mod."): parameter for name, parameter in engine.module.named_parameters()
        }
        self._masters = self._find_masters()
        self._create_slots()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the whole parameter. (ZeRO 3 leaves an empty tensor in the model.)"""
        parameter = self.parameters[name]
        return tuple(getattr(parameter, "ds_shape", parameter.shape))

    def slots(self, name: str) -> tuple[str, ...]:
        """The optimizer slots of a parameter; none if this rank holds no part of it."""
        parameter = self.parameters[name]
        if hasattr(parameter, "ds_id"):
            group = self.zero.grad_position[self.zero.get_param_id(parameter)][0]
            master = self.zero.fp32_partitioned_groups_flat[group]
        elif hasattr(parameter, "_hp_mapping"):
            return tuple(parameter._hp_mapping.get_optim_state_keys()) if parameter._hp_mapping is not None else ()
        else:
            master = self._master(parameter)
        return _slots_of(self.optimizer, master)

    def extent(self, name: str) -> tuple[int, int]:
        """This rank's part of a parameter: (first element, number of elements)."""
        parameter = self.parameters[name]
        numel = numel_of(self.shape(name))
        if hasattr(parameter, "ds_id"):
            share = parameter.ds_tensor.numel()
            start = min(numel, share * self.rank)
            return start, min(share, numel - start)
        if hasattr(parameter, "_hp_mapping"):
            if parameter._hp_mapping is None:
                return 0, 0
            address = parameter._hp_mapping.lp_fragment_address
            return address.start, address.numel
        return 0, numel

    def place(self, name: str) -> tuple[Tensor, int]:
        """The optimizer's tensor that holds this rank's part of a parameter, and the part's first element in it."""
        parameter = self.parameters[name]
        if hasattr(parameter, "ds_id"):
            group, offset, _ = self.zero.grad_position[self.zero.get_param_id(parameter)]
            return self.zero.fp32_partitioned_groups_flat[group], offset
        if hasattr(parameter, "_hp_mapping"):
            groups = enumerate(self.zero.bit16_groups)
            group = next(index for index, members in groups if any(member is parameter for member in members))
            mapping = parameter._hp_mapping
            offset = mapping.hp_fragment_address.start if mapping is not None else 0
            return self.zero.single_partition_of_fp32_groups[group], offset
        return self._master(parameter), 0

    def get(self, name: str, slot: str | None = None) -> Tensor:
        """This rank's part of a weight (slot None) or slot, flat, without padding."""
        parameter = self.parameters[name]
        if hasattr(parameter, "ds_id"):
            from deepspeed.utils import safe_get_local_fp32_param as weight
            from deepspeed.utils import safe_get_local_optimizer_state as state

            part = weight(parameter) if slot is None else state(parameter, slot)
            return part.flatten()[: self.extent(name)[1]]
        if hasattr(parameter, "_hp_mapping"):
            return parameter._hp_mapping.get_hp_fragment(slot).data
        master = self._master(parameter)
        return (master.data if slot is None else self.optimizer.state[master][slot]).view(-1)

    def set(self, name: str, slot: str | None, part: Tensor) -> None:
        """Overwrite this rank's part with `part`, which is flat and without padding. Half-precision copies stay."""
        parameter = self.parameters[name]
        if hasattr(parameter, "ds_id"):
            from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

            padded = F.pad(part, (0, parameter.ds_tensor.numel() - part.numel()))
            if slot is None:
                safe_set_local_fp32_param(parameter, padded)
            else:
                safe_set_local_optimizer_state(parameter, padded, slot)
        elif part.numel():
            self.get(name, slot).copy_(part)

    def shards(self) -> list[tuple[Shard, Callable[[], Tensor]]]:
        """The shards that this rank saves, each with a function that returns its elements.

        What all ranks hold is divided evenly between them.
        """
        found: list[tuple[Shard, Callable[[], Tensor]]] = []
        everything = sum(numel_of(self.shape(name)) for name in self.parameters)
        low, high = (everything * (self.rank + more) // self.world_size for more in (0, 1))
        offset = 0
        for name, parameter in self.parameters.items():
            start, numel = self.extent(name)
            skip = 0
            if self._is_whole(parameter):
                skip = min(max(low - offset, 0), numel)
                numel = max(min(high - offset, numel) - skip, 0)
            offset += numel_of(self.shape(name))
            for slot in (None, *self.slots(name)) if numel else ():
                shard = Shard(name, slot, self.shape(name), start + skip, numel)
                found.append((shard, partial(self._narrowed, name, slot, skip, numel)))
        return found

    def _narrowed(self, name: str, slot: str | None, skip: int, numel: int) -> Tensor:
        return self.get(name, slot).narrow(0, skip, numel)

    @property
    def step(self) -> int | None:
        """The number of updates made, without skipped ones; None if the optimizer does not count."""
        counts = [state["step"] for state in self.optimizer.state.values() if "step" in state]
        return int(counts[0]) if counts else None

    @step.setter
    def step(self, step: int) -> None:
        for state in self.optimizer.state.values():
            if torch.is_tensor(state.get("step")):
                state["step"].fill_(step)
            elif "step" in state:
                state["step"] = step

    def _is_whole(self, parameter: Any) -> bool:
        return not hasattr(parameter, "ds_id") and not hasattr(parameter, "_hp_mapping")

    def _master(self, parameter: Any) -> Tensor:
        return self._masters.get(id(parameter), parameter)

    def _find_masters(self) -> dict[int, Tensor]:
        """At stage 0 in half precision: the fp32 master of each parameter, by the parameter's id()."""
        halves, wholes = getattr(self.zero, "fp16_groups", None), getattr(self.zero, "fp32_groups", None)
        if halves is None or wholes is None:
            return {}
        return {
            id(half): whole
            for group, masters in zip(halves, wholes, strict=True)
            for half, whole in zip(group, masters, strict=True)
        }

    def _create_slots(self) -> None:
        """Create the optimizer's state, which it would otherwise create at its first update.

        This makes one update of one tensor at a time, with zero gradients and learning rate 0, and zeroes the slots.
        """
        flats = getattr(self.zero, "fp32_partitioned_groups_flat", None)  # stage 3 hides them from the optimizer
        if flats is None:
            groups = [(group, master) for group in self.optimizer.param_groups for master in group["params"]]
        else:
            to_group = self.zero.sub_group_to_group_id
            groups = [(self.optimizer.param_groups[to_group[i]], flat) for i, flat in enumerate(flats)]
        kept = [(group, group["params"], group["lr"]) for group in self.optimizer.param_groups]
        for group, master in groups:
            if not self.optimizer.state[master]:
                self._update_alone(group, master)
            for slot in _slots_of(self.optimizer, master):
                self.optimizer.state[master][slot].zero_()
        for group, members, lr in kept:
            group["params"], group["lr"] = members, lr
        if hasattr(self.zero, "_lazy_init_hp_params_optimizer_state"):
            self.zero._lazy_init_hp_params_optimizer_state()
        self.step = 0  # neither these updates nor an empty one by DeepSpeed count

    def _update_alone(self, group: dict[str, Any], master: Tensor) -> None:
        for other in self.optimizer.param_groups:
            other["params"] = []
        gradient = master.grad
        group["params"], group["lr"], master.grad = [master], 0.0, torch.zeros_like(master)
        self.optimizer.step()
        master.grad = gradient


def _slots_of(optimizer: torch.optim.Optimizer, master: Tensor) -> tuple[str, ...]:
    state = optimizer.state[master]
    return tuple(key for key, value in state.items() if torch.is_tensor(value) and value.shape == master.shape)
