"""The choice of a device: cuda, then mps, then cpu."""

import pytest
import torch

from kogpt.common import device
from kogpt.common.device import best_device, choose_device
from kogpt.common.errors import UserError


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(True, True, "cuda:0"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_best_device(cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert str(best_device()) == chosen


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="about machines that are no Macs")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="mps cannot be used here"):
        choose_device("mps")
    with pytest.raises(UserError, match=r"gpu is not a device; give cpu, cuda, .* or mps"):
        choose_device("gpu")


def test_a_gpu_that_torch_cannot_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, or chosen as the best device; also if torch counts it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device, "unusable_gpus", lambda index: f"GPU {index} cannot be used")
    for name, number in ((None, 0), ("cuda", 0), ("cuda:1", 1)):
        with pytest.raises(UserError, match=f"GPU {number} cannot be used; or give --device cpu"):
            choose_device(name)
