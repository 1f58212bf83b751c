"""The W&B run, read back from its offline file: every step once, whatever was lost before."""

import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kogpt.common import wandb
from kogpt.tracking import wandb_run


def _records(*steps: int) -> list[dict[str, Any]]:
    return [{"step": step, "loss": 1 / step, "mfu": None} for step in steps]


def _history(run: Path) -> list[tuple[int, float]]:
    return [(record["step"]["num"], record["item"]["loss"]) for record in wandb_run.offline_records(run)]


def test_a_resumed_run_fills_the_gap_and_doubles_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kogpt")
    first = wandb_run.start(tmp_path, "offline", "kogpt-test", {"seed": 1})
    assert first is not None
    for record in _records(1, 2):
        first.log(record)
    first.log({**_records(3)[0], "continuations": [("대한민국은 ", "민주공화국이다")]})
    first.finish("stopped", {"loss": 1 / 3})
    assert wandb_run.last_step_offline(tmp_path) == 3
    assert any("wandb sync" in line for line in caplog.messages)
    # metrics.jsonl goes to 5: steps 4 and 5, with its table, never reached W&B; the run then goes on with 6.
    second = wandb_run.start(tmp_path, "offline", "kogpt-test", {"seed": 1})
    assert second is not None
    assert second.handle.id == first.handle.id
    fifth = {**_records(5)[0], "continuations": [["모든 국민은 ", "법 앞에"]]}
    second.catch_up([*_records(1, 2, 3, 4), fifth])
    second.log(_records(6)[0])
    second.finish("finished", {})
    assert _history(tmp_path) == [(step, pytest.approx(1 / step)) for step in range(1, 7)]
    tables = (tmp_path / "wandb").glob("offline-run-*/files/media/table/*.json")
    rows = sorted(row for table in tables for row in json.loads(table.read_text())["data"])
    assert rows == [[3, "대한민국은 ", "민주공화국이다"], [5, "모든 국민은 ", "법 앞에"]]


def test_a_start_inspects_the_folder_of_the_last_start_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's command takes more than a second a folder, and the other ranks wait for rank 0."""
    whole_run, inspected = subprocess.run, []

    def watched(command: list[str], **rest: Any) -> Any:
        if "inspect" in command:
            inspected.append(Path(command[-1]).name)
        return whole_run(command, **rest)

    monkeypatch.setattr(subprocess, "run", watched)
    for start in range(1, 4):
        run = wandb_run.start(tmp_path, "offline", "kogpt-test", {})
        assert run is not None
        assert run.seen == start - 1
        run.log(_records(start)[0])
        run.finish("stopped", {})
    folders = [folder.name for folder in sorted((tmp_path / "wandb").glob("offline-run-*"))]
    assert len(folders) == 3
    assert inspected == folders[:2], "the first start has none, each later one that of the start before"
    assert _history(tmp_path) == [(step, pytest.approx(1 / step)) for step in (1, 2, 3)]


def test_off_starts_nothing(tmp_path: Path) -> None:
    assert wandb_run.start(tmp_path, "off", "kogpt-test", {}) is None
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_costs_a_line_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens on the discard port
    monkeypatch.setattr(wandb, "INIT_SECONDS", 3)
    run = wandb_run.start(tmp_path, "online", "kogpt-test", {})
    assert run is not None
    assert any("W&B online cannot start" in line for line in caplog.messages)
    run.log(_records(1)[0])
    run.finish("finished", {})
    assert _history(tmp_path) == [(1, 1.0)]
