"""The device that a command computes on. In: what --device says, or None. Out: a torch device that is there."""

from typing import TYPE_CHECKING

from kogpt.common.errors import UserError

if TYPE_CHECKING:
    import torch


def choose_device(name: str | None) -> "torch.device":
    """The device named, or a GPU if there is one, or the CPU. Raises `UserError` for a device that is not there."""
    import torch

    from kogpt.common.numerics import allow_tf32

    allow_tf32()
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"--device {name} is no device; give cpu, cuda, or a GPU by its number such as cuda:0."
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: this machine has {torch.cuda.device_count()} usable GPUs; give --device cpu."
        )
    try:
        torch.empty(0, device=device).add_(1).tolist()
    except (RuntimeError, NotImplementedError, AssertionError):
        raise UserError(f"--device {name} cannot be used here; give cpu or cuda.") from None
    return device
