"""Old spellings of flags still work, and are not shown in --help."""

import sys
from pathlib import Path

import pytest

from kogpt import cli
from kogpt.common.renamed_flags import rewrite
from preprocess import pipeline, run
from preprocess.options import Options


def test_both_forms_of_an_old_flag_are_rewritten_and_nothing_else() -> None:
    assert rewrite(["--train-tokenizer", "8000", "--licence=mit"]) == ["--vocab-size", "8000", "--license=mit"]
    assert rewrite(["--train_tokenizer=8000"]) == ["--vocab-size=8000"]
    same = ["--tokenizer", "a_b=c", "licence", "--train-tokenizers", "--text-path", "x[+]=y"]
    assert rewrite(same) == same


@pytest.mark.parametrize("flag", ["--vocab-size", "--train-tokenizer"])
def test_preprocess_knows_the_old_flag(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Options] = []
    monkeypatch.setattr(pipeline, "preprocess", given.append)
    monkeypatch.setattr(sys, "argv", ["run.py", "--input", "x", "--output", "y", flag, "4000"])
    assert run.main() == 0
    assert given[0].vocab_size == 4000


@pytest.mark.parametrize("flag", ["--license", "--licence"])
def test_export_knows_the_old_flag(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setitem(cli.COMMANDS, "export", _like_export(given))
    monkeypatch.setattr(sys, "argv", ["kogpt", "export", "run", str(tmp_path), flag, "mit"])
    cli.main()
    assert given == ["mit"]


def _like_export(given: list[str]):
    import functools

    @functools.wraps(cli.export)
    def export(*arguments, license="unknown", **others):
        given.append(license)

    return export


@pytest.mark.parametrize("words", [["export", "--help"]])
def test_help_shows_the_new_flag_alone(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["kogpt", *words])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().out
    assert "--license" in shown
    assert "--licence" not in shown
