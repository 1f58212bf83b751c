"""metrics.jsonl, run.json and the curves: whole at any time, cut at the right place, alive on a full disk."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kogpt.common.errors import UserError
from kogpt.common.log import set_up_logging
from kogpt.tracking.tracker import MetricsFile, RunFile, Tracker, draw_curves, finite, read_metrics


def _record(step: int, **more: Any) -> dict[str, Any]:
    numbers = {"loss": 5.0 / step, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_s": 10.0, "mfu": None}
    numbers |= {"chars_per_s": 20.0, "data_wait": 0.01, "loss_scale": 1.0, "memory_gib_rank0": 0.5}
    counts = {"step": step, "skipped_steps": 0, "epoch": 0.1, "tokens": 10 * step}
    return {**numbers, **counts, "val_loss": None, "val_bits_per_char": None, **more}


def test_what_a_resumed_run_does_again_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0, path)
    for step in range(1, 8):
        metrics.append(_record(step))
    with open(path, "ab") as file:
        file.write(b'{"step": 8, "lo')
    assert [record["step"] for record in read_metrics(path)] == list(range(1, 8))
    resumed = MetricsFile(path, 5, path)
    resumed.append(_record(6, loss=math.nan))
    resumed.sync()
    found = read_metrics(path)
    assert [record["step"] for record in found] == list(range(1, 7))
    assert found[-1]["loss"] is None


def test_lost_lines_are_not_glossed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(_record(step)) + "\n" for step in (1, 2, 4)))
    with pytest.raises(UserError, match="does not hold the steps 1 to 4"):
        MetricsFile(path, 4, path)
    MetricsFile(path, 2, path)


def test_lines_wait_for_room_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0, path)
    metrics.append(_record(1))
    whole = metrics._file
    metrics._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - the kernel's own full disk
    metrics.append(_record(2))
    metrics.append(_record(3))
    with pytest.raises(OSError, match="No space left"):
        metrics.sync()
    metrics._file.close()
    metrics._file = whole
    metrics.append(_record(4))
    metrics.sync()
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3, 4]


def test_finite() -> None:
    assert finite({"a": [math.nan, 1.0], "b": {"c": math.inf}, "d": "x"}) == {
        "a": [None, 1.0],
        "b": {"c": None},
        "d": "x",
    }


def test_run_file_is_written_at_once_or_after_a_while(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "run.json", {"state": "running"})
    file.update(now=False, step=1)
    file.update(now=False, step=2)
    assert json.loads((tmp_path / "run.json").read_text())["step"] == 1
    file.update(now=True, step=3)
    assert json.loads((tmp_path / "run.json").read_text()) == {"state": "running", "step": 3}


def test_curves_bear_missing_numbers(tmp_path: Path) -> None:
    records = [_record(1), _record(2, loss=None, grad_norm=None), _record(3, val_loss=2.0, val_bits_per_char=3.0)]
    draw_curves(tmp_path / "curves.png", records)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_tracker_says_where_the_run_stands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    source = tmp_path / "metrics.jsonl"
    tracker = Tracker(tmp_path, step=0, steps=4, about={"seed": 1}, wandb=None, source=source, artifact=False)
    tracker.log(_record(1), next_evaluation=2)
    continued = [("대한민국은 ", "민주\n공화국이다")]
    record = _record(2, val_loss=1.5, val_bits_per_char=2.25, continuations=continued)
    tracker.log(record, next_evaluation=4)
    tracker.evaluated(record)
    state = json.loads((tmp_path / "run.json").read_text())
    assert (state["state"], state["step"], state["steps"], state["next_evaluation"]) == ("running", 2, 4, 4)
    assert (state["tokens"], state["mfu"]) == (20, "unknown")
    assert state["eta_seconds"] > 0
    assert state["last_evaluation"] == {"step": 2, "val_loss": 1.5, "val_bits_per_char": 2.25}
    tracker.finish("stopped")
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "stopped"
    said = capfd.readouterr().err
    assert "loss=2.5000, lr=1.00e-03, norm=1.00, tok/s=10, char/s=20, mfu=unknown, wait=1.0%, GiB=0.5" in said
    assert "2.2500 bits per character" in said
    assert "대한민국은 |민주\\n공화국이다" in said
    assert (tmp_path / "curves.png").exists()
