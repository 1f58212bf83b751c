"""The choice of a device: cuda, then mps, then cpu."""

import pytest
import torch

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
