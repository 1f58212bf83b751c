"""Divergence, stall, and end are told once each."""

import time

import pytest
from builders import record

from kogpt.tracking import alerts
from kogpt.tracking.alerts import WINDOW, Alerts

Told = list[tuple[str, str, str]]


def watching() -> tuple[Alerts, Told]:
    told: Told = []
    return Alerts(lambda *one: told.append(one)), told


def test_a_loss_that_rises_and_comes_back_and_rises() -> None:
    watch, told = watching()
    losses = [9.0 - step / 50 for step in range(200)] + [6.0] * WINDOW + [5.0] * WINDOW + [7.0] * WINDOW
    for step, loss in enumerate(losses, 1):
        watch.step(record(step, loss=loss))
        if step == 200:
            assert told == [], "a training that learns"
    watch.finish("finished", "run: finished")
    assert [(title, level) for title, _, level in told] == [
        *[("training diverges", "WARN")] * 2,
        ("training finished", "INFO"),
    ]
    assert "rose from 5.2" in told[0][1]


def test_a_resume_remembers_the_lowest_loss() -> None:
    told: Told = []
    past = [record(step, loss=6.0 - step / 50) for step in range(1, 100)]
    watch = Alerts(lambda *one: told.append(one), past)
    for step in range(100, 100 + WINDOW):
        watch.step(record(step, loss=7.0))
    watch.finish("stopped", "run: stopped")
    assert [title for title, _, _ in told] == ["training diverges", "training stopped"]


def test_a_noisy_loss_is_no_divergence() -> None:
    watch, told = watching()
    for step in range(1, 400):
        watch.step(record(step, loss=4.0 + (step * 7919 % 13 - 6) / 10))
    watch.finish("stopped", "run: stopped")
    assert [title for title, _, _ in told] == ["training stopped"]


def test_a_loss_that_is_no_number() -> None:
    watch, told = watching()
    for step in (1, 2, 3):
        watch.step(record(step, loss=None if step == 2 else float("nan")))
    watch.finish("failed", "run: failed")
    assert [(title, level) for title, _, level in told] == [
        ("training diverges", "WARN"),
        ("training failed", "ERROR"),
    ]


def test_a_training_that_stands_still(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(alerts, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(alerts, "LOOK_SECONDS", 0.02)
    watch, told = watching()
    watch.step(record(1))
    end = time.monotonic() + 30
    while not told and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.1)
    assert [title for title, _, _ in told] == ["training stalls"], "once"
    assert "step 1 ended" in caplog.text
    watch.finish("stopped", "run: stopped")
