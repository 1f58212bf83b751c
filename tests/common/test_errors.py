"""Errors of the user end in one sentence and status 2. Bugs keep their stack trace."""

from pathlib import Path

import pytest

from kogpt.common.errors import UserError, exit_on_user_error


def test_a_user_error_is_one_sentence_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        raise UserError("there is no corpus in demo/corpus: run make demo")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "kogpt: there is no corpus in demo/corpus: run make demo\n"


def test_a_file_that_the_system_refuses_is_a_sentence_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        (tmp_path / "missing" / "file").write_text("")
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"kogpt: {tmp_path}/missing/file cannot be used: No such file or directory.\n"
    with pytest.raises(SystemExit), exit_on_user_error(), open("/dev/full", "w") as full:
        full.write("x")
        full.flush()
    assert "No space left" in capsys.readouterr().err


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        _ = 1 / 0
