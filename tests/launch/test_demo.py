"""The demo's DeepSpeed file, for any number of GPUs."""

import json
import runpy
from pathlib import Path

import pytest
from trainings import PROJECT

from kogpt.train.deepspeed_config import plan

deepspeed_file = runpy.run_path(str(PROJECT / "launch" / "demo.py"))["deepspeed_file"]


@pytest.mark.parametrize("ranks", range(1, 17))
def test_its_batch_divides(ranks: int, tmp_path: Path) -> None:
    path = deepspeed_file(tmp_path, ranks)
    fitted = plan(path, json.loads(path.read_text()), world_size=ranks, device="cuda", has_bf16=True)
    assert 16 <= fitted.global_batch < 16 + ranks
    assert (path.parent == tmp_path) == (ranks not in (1, 2, 4, 8, 16))
