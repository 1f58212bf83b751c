"""--profile: a trace of the steps that were named, the costliest operations, and the same losses."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from trainings import Plan, deepspeed_file, flags, losses, together

from kogpt.common.errors import UserError
from kogpt.common.flags import Span
from kogpt.train.profile import Profile


def test_two_ranks_go_on_after_it_with_the_same_losses(corpus: Path, tmp_path: Path) -> None:
    config = deepspeed_file(tmp_path / "ds.json", 2)
    plain, profiled, short = (tmp_path / name for name in ("plain", "profiled", "short"))
    plans = [
        Plan(flags(corpus, plain, config, 5)),
        Plan(flags(corpus, profiled, config, 5, "--profile", "2:3")),
        Plan(flags(corpus, short, config, 2, "--profile", "2:9")),
        Plan(flags(corpus, tmp_path / "none", config, 2, "--profile", "3:9")),
    ]
    *ends, refused = together(2, plans, tmp_path / "ranks")
    assert ends == [0, 0, 0]
    assert "--profile 3:9 begins after the last step, 2" in refused
    assert losses(profiled) == losses(plain)
    [trace] = profiled.glob("trace*")
    assert trace.name == "trace-2-3.json"
    events = json.loads(trace.read_bytes())["traceEvents"]
    assert sum(event.get("name") == "aten::embedding" for event in events) >= 2
    assert [path.name for path in short.glob("trace*")] == ["trace-2-2.json"], "a training that ends within them"


def test_the_costliest_operations(ranks: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import torch

    caplog.set_level(logging.INFO, "kogpt")
    profiler = Profile(Span(2, 2), tmp_path, ranks, 3)
    matrix = torch.ones(600, 600)
    for number in (1, 2, 3):
        with profiler.step(number):
            for _ in range(10):
                matrix @ matrix
    said, head, *rows = caplog.messages
    assert said.startswith(f"Steps 2 to 2 are in {tmp_path / 'trace-2-2.json'}")
    assert "10 operations" in head
    assert 2 <= len(rows) <= 10
    assert any(row.split()[0] == "aten::mm" and row.endswith(" 10 calls") for row in rows)


def test_a_full_disk_costs_the_trace_alone(
    ranks: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiler = Profile(Span(1, 1), tmp_path / "missing", ranks, 3)
    with profiler.step(1):
        pass
    assert "could not be written" in caplog.text


@pytest.mark.parametrize("steps", [0, 1])
def test_steps_after_the_end_are_refused(steps: int, ranks: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--profile 2:3 begins after the last step"):
        Profile(Span(2, 3), tmp_path, ranks, steps)
