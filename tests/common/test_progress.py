"""The progress of a long job: where there is no terminal, plain lines that a log file can hold."""

import re
import sys
import tracemalloc

import pytest

from kogpt.common import progress
from kogpt.common.progress import ProgressBar


def test_a_log_file_gets_lines_and_the_last_state(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", -1.0)  # every time
    bar = ProgressBar(10, " articles", done=4, title="morphemes")
    bar.advance(3, "90 chars/s")
    bar.advance(3, "99 chars/s")
    assert bar.done == 10
    assert bar.seconds_left == 0
    bar.close()
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()
    assert [re.findall(r"\d+/10", line) for line in lines] == [["7/10"], ["10/10"], ["10/10"]]
    assert all(line.startswith("morphemes") for line in lines)
    assert "99 chars/s" in lines[-1]


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = ProgressBar(2, "step")
    bar.advance(2)
    bar.close()
    assert "\r" in capsys.readouterr().err


def test_what_turns_out_to_be_done_already_is_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    bar = ProgressBar(None, " articles")
    for second in range(1, 21):
        now[0] += 1
        bar.of(1_000_000, 45_000 * second)  # found block by block
        bar.advance(100)
    assert bar.done == 902_000
    assert bar.seconds_left == pytest.approx((1_000_000 - 902_000) / 100)


def test_a_bar_that_nobody_sees_keeps_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    bar = ProgressBar(300, "step")
    tracemalloc.start()
    for _ in range(300):
        now[0] += 1
        bar.advance(1, "loss=1.0")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 15_000
