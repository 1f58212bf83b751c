"""One call per step updates all files and the console."""

import json
import threading
from pathlib import Path

import pytest
from builders import record

from kogpt.common.log import set_up_logging
from kogpt.tracking.metrics_file import read_metrics
from kogpt.tracking.tracker import Tracker


def test_tracker_says_where_the_run_stands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    source = tmp_path / "metrics.jsonl"
    tracker = Tracker(tmp_path, step=0, steps=4, about={"seed": 1}, wandb=None, source=source, artifact=False)
    tracker.log(record(1), next_evaluation=2)
    continued = [("대한민국은 ", "민주\n공화국이다")]
    second = record(2, val_loss=1.5, val_bits_per_char=2.25, continuations=continued)
    tracker.log(second, next_evaluation=4)
    tracker.evaluated(second)
    tracker.sync()
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


def test_the_training_does_not_wait_for_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, goes_on = tmp_path / "metrics.jsonl", threading.Event()
    tracker = Tracker(tmp_path, step=0, steps=4, about={}, wandb=None, source=path, artifact=False)
    append = tracker.metrics.append

    def pause(record: dict[str, float]) -> None:
        assert goes_on.wait(10)
        append(record)

    monkeypatch.setattr(tracker.metrics, "append", pause)
    tracker.log(record(1), next_evaluation=2)
    tracker.saved(tmp_path / "step-00000001")
    assert not read_metrics(path)
    goes_on.set()
    tracker.sync()
    assert [line["step"] for line in read_metrics(path)] == [1]
    tracker.finish("stopped")
