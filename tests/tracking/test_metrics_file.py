"""metrics.jsonl: truncated at the right step on resume, no silent gaps, and a full disk."""

import json
import math
from pathlib import Path

import pytest
from builders import record

from kogpt.common.errors import UserError
from kogpt.tracking.metrics_file import MetricsFile, finite, read_metrics


def test_what_a_resumed_run_does_again_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0, path)
    for step in range(1, 8):
        metrics.append(record(step))
    with open(path, "ab") as file:
        file.write(b'{"step": 8, "lo')
    assert [line["step"] for line in read_metrics(path)] == list(range(1, 8))
    resumed = MetricsFile(path, 5, path)
    resumed.append(record(6, loss=math.nan))
    resumed.sync()
    found = read_metrics(path)
    assert [line["step"] for line in found] == list(range(1, 7))
    assert found[-1]["loss"] is None


def test_lost_lines_are_not_glossed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record(step)) + "\n" for step in (1, 2, 4)))
    with pytest.raises(UserError, match="does not hold the steps 1 to 4"):
        MetricsFile(path, 4, path)
    MetricsFile(path, 2, path)


def test_lines_wait_for_room_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0, path)
    metrics.append(record(1))
    whole = metrics._file
    metrics._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - the kernel's own full disk
    metrics.append(record(2))
    metrics.append(record(3))
    with pytest.raises(OSError, match="No space left"):
        metrics.sync()
    metrics._file.close()
    metrics._file = whole
    metrics.append(record(4))
    metrics.sync()
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]


def test_finite() -> None:
    assert finite({"a": [math.nan, 1.0], "b": {"c": math.inf}, "d": "x"}) == {
        "a": [None, 1.0],
        "b": {"c": None},
        "d": "x",
    }
