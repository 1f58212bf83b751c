"""The command `kogpt` as a user types it."""

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import encoded, make_run, make_tokenizer, write_corpus

from kogpt import cli
from kogpt.tokenizer.wordpiece import open_tokenizer
from kogpt.tracking import wandb_run

TEXTS = ["나는 학교에 갔다.\n\n오늘은 비가 온다. 😀", "너는  집에 갔다.", "우리는 비를 좋아한다."]


Kogpt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "corpus"
    tokenizer = make_tokenizer(TEXTS * 3)
    return write_corpus(folder, tokenizer, encoded(tokenizer, TEXTS), val_fraction=0.3)


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a random model, because the quality of its text does not matter here."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    return make_run(folder, open_tokenizer(corpus / "tokenizer"), n_layer=1, n_embd=16)


def test_inspect_shows_counts_and_finds_no_damage(kogpt: Kogpt, corpus: Path, tmp_path: Path) -> None:
    shown = kogpt("inspect", corpus, "--decode", tmp_path / "back.jsonl")
    assert shown.returncode == 0, shown.stderr
    assert "articles in" in shown.stdout
    back = [json.loads(line) for line in (tmp_path / "back.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [article["text"] for article in back] == TEXTS


def test_generate_prints_every_prompt_in_front_of_its_continuations(kogpt: Kogpt, run: Path) -> None:
    shown = kogpt("generate", run, "나는", "오늘은", "--samples", "2", "--max-new-tokens", "5", "--greedy")
    assert shown.returncode == 0, shown.stderr
    first, second = shown.stdout.index("나는"), shown.stdout.index("오늘은")
    assert first == 0 < second
    assert shown.stdout[:second].count("나는") == 2
    assert shown.stdout[second:].count("오늘은") == 2
    assert kogpt("generate", run, "나는", "--max-new-tokens", "5", "--greedy").stdout in shown.stdout


def test_generate_takes_prompts_from_standard_input_and_files(
    kogpt: Kogpt, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("\ufeff나는\n\n오늘은\n", encoding="utf-8")
    by_file = kogpt("generate", run, "--file", tmp_path / "prompts.txt", "--max-new-tokens", "3")
    by_input = kogpt("generate", run, "--max-new-tokens", "3", stdin="나는\n오늘은\n")
    by_word = kogpt("generate", run, "나는", "오늘은", "--max-new-tokens", "3")
    monkeypatch.chdir(run / "checkpoints/step-00000005")
    by_step = kogpt("generate", ".", "나는", "오늘은", "--max-new-tokens", "3")
    assert by_step.stdout == by_word.stdout, by_step.stderr
    assert by_word.stdout
    assert by_file.stdout == by_input.stdout == by_word.stdout


def test_evaluate_writes_json_and_a_wandb_run_in_the_training_s_group(
    kogpt: Kogpt, run: Path, corpus: Path, tmp_path: Path
) -> None:
    words: list[str | Path] = ["--corpus", corpus, "--json-file", tmp_path / "numbers.json", "--wandb", "offline"]
    ended = kogpt("evaluate", run, *words)
    assert ended.returncode == 0, ended.stderr
    result = json.loads((tmp_path / "numbers.json").read_text())
    expected = result["bits_per_char"][str(corpus)]["bits_per_char"]
    assert f"{expected:.4f}" in ended.stdout
    [record] = wandb_run.offline_records(run / "evaluations")
    assert record["item"][f"bits_per_char/{corpus}"] == expected
    [started] = wandb_run.offline_records(run / "evaluations", "run")
    assert started["run_group"] == (run / "wandb_id").read_text()
    assert started["job_type"] == "evaluation"


def test_a_reader_that_has_gone_is_no_error(run: Path) -> None:
    program = [sys.executable, str(Path(sys.executable).with_name("kogpt"))]
    command = [*program, "generate", str(run), "나는", "--max-new-tokens", "20", "--greedy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(120) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


class PipeOfWindows(io.FileIO):
    """Says of a closed pipe what Windows does."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise OSError(errno.EINVAL, "Invalid argument") from None


def test_a_reader_that_has_gone_is_no_error_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def talk() -> None:
        """Like `kogpt chat`."""
        print("네", flush=True)

    reads, writes = os.pipe()
    os.close(reads)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(PipeOfWindows(writes, "w")), "utf-8"))
    monkeypatch.setattr(sys, "argv", ["kogpt", "chat"])
    monkeypatch.setitem(cli.COMMANDS, "chat", talk)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 141
    sys.stdout.close()  # what is left goes nowhere

    def wrong() -> None:
        """A bug."""
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    monkeypatch.setitem(cli.COMMANDS, "chat", wrong)
    with pytest.raises(OSError, match="Invalid argument"):
        cli.main()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["inspect", "nowhere"], "nowhere is not a finished token corpus"),
        (["generate", "nowhere", "나는"], "nowhere holds no usable checkpoint"),
        (["generate", "nowhere"], "there is no prompt"),
        (
            ["generate", "nowhere", "나는", "--file", "prompts.txt"],
            "and --file prompts.txt as well; give one of the two",
        ),
        (["generate", "nowhere", "나는", "--temperature", "0"], "--temperature"),
        (["generate", "nowhere", "나는", "--samples", "0"], "--samples is 0"),
        (["evaluate", "nowhere", "--texts", "x", "--json-file", "not/there.json"], "there is no folder not"),
        (["evaluate", "nowhere"], "nothing to evaluate on"),
        (["evaluate", "nowhere", "--texts", "x", "--limit", "0"], "--limit is 0"),
        (["evaluate", "nowhere", "--texts", "x", "--limit", "-2", "--shots", "-1"], "--shots is -1"),
        (["generate", "nowhere", "나는", "--device", "foo"], "--device foo is not a device"),
        (["generate", "nowhere", "나는", "--device", "cuda:99"], "--device cuda:99"),
        (["generate", "nowhere", "나는", "--seed", "99999999999999999999"], "--seed is 9"),
        (["export-windows", "nowhere", "out"], "nowhere is not a finished token corpus"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(kogpt: Kogpt, words: list[str], sentence: str) -> None:
    ended = kogpt(*words)
    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
