"""Errors of the user end in one sentence and status 2. Bugs keep their stack trace."""

import pytest

from kogpt.common.errors import UserError, exit_on_user_error


def test_a_user_error_is_one_sentence_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        raise UserError("there is no corpus in demo/corpus: run make demo")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "kogpt: there is no corpus in demo/corpus: run make demo\n"


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        _ = 1 / 0
