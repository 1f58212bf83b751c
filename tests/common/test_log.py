"""Logging: which ranks and modules log, where to, and how lines coexist with progress bars."""

import io
import logging
import re
import subprocess
import sys

import pytest
from tqdm import tqdm

from kogpt.common.log import set_up_logging

ours, theirs = logging.getLogger("kogpt.somewhere"), logging.getLogger("another")


def _speak() -> None:
    ours.info("a note")
    logging.getLogger("preprocess.somewhere").warning("a warning")
    ours.error("an error")
    theirs.info("not ours")


def test_the_first_rank_says_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    set_up_logging()
    _speak()
    assert capsys.readouterr() == ("", "a note\na warning\nan error\n")


def test_lines_go_to_stdout_if_asked_until_there_is_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(stream="stdout")
    ours.info("before")
    with tqdm(total=2, file=sys.stderr, mininterval=0) as bar:
        bar.update(1)
        ours.info("above")
    out, err = capsys.readouterr()
    assert out == "before\n"
    assert re.search(r"\r *\rabove\n", err), "the bar is wiped, the line stands alone"


def test_other_ranks_are_heard_from_errors_on(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(3)
    _speak()
    assert capsys.readouterr().err == "rank 3: an error\n"
    set_up_logging()


def test_a_library_that_sets_nothing_up_is_silent_but_for_warnings() -> None:
    code = "import logging; log = logging.getLogger('kogpt.x'); log.info('a note'); log.warning('a warning')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "a warning\n")


def test_what_a_terminal_cannot_show_is_replaced_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, content in raw.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(content, encoding="cp949", write_through=True))
    set_up_logging()
    print("안녕 🙂")
    print("안녕 🙂 \udcff", file=sys.stderr)
    ours.info("로그 🙂")
    assert raw["stdout"].getvalue().decode("cp949") == "안녕 ?\n"
    assert raw["stderr"].getvalue().decode("cp949") == "안녕 ? ?\n로그 ?\n"
