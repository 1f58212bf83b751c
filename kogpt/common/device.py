"""Choose the device of a command. In: the value of --device, or None. Out: a usable torch device."""

from typing import TYPE_CHECKING

from kogpt.common.errors import UserError

if TYPE_CHECKING:
    import torch


def choose_device(name: str | None) -> "torch.device":
    """The named device; without a name a GPU if there is one, else the CPU. Raises `UserError` if it is unusable."""
    import torch

    from kogpt.common.numerics import allow_tf32

    allow_tf32()
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name} is not a device; give cpu, cuda, or a numbered GPU such as cuda:0.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: this machine has {torch.cuda.device_count()} usable GPUs; give --device cpu."
        )
    try:
        torch.empty(0, device=device).add_(1).tolist()
    except (RuntimeError, NotImplementedError, AssertionError):
        raise UserError(f"--device {name} cannot be used here; give cpu or cuda.") from None
    return device
