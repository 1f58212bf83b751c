"""--init: a run begins with the weights of another, its embedding grows by role tokens, and it resumes without it."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import constitution, encoded, make_run, make_tokenizer, without_roles, write_corpus
from engines import train_here
from trainings import MODEL, SCHEDULE, deepspeed_file, flags, losses, records

from kogpt.checkpoint.load import load_for_inference
from kogpt.common.errors import UserError
from kogpt.tokenizer.pieces import ROLE_PIECES
from kogpt.tokenizer.wordpiece import Tokenizer, open_tokenizer


@pytest.fixture(scope="module")
def old_run(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose vocabulary has no role tokens."""
    return make_run(tmp_path_factory.mktemp("old") / "base", without_roles(tokenizer), n_head=1, n_embd=64, n_layer=1)


def _line(corpus: Path, out: Path, steps: int, *more: str) -> list[str]:
    line = flags(corpus, out, deepspeed_file(out.with_suffix(".json"), 0), steps, *more)
    return line[len(MODEL) + len(SCHEDULE) :]


@pytest.mark.parametrize(("arch", "shape"), [("gpt2", {}), ("qwen3", {"tied": True}), ("qwen3", {"tied": False})])
def test_the_embedding_grows_by_the_role_tokens(
    arch: str,
    shape: dict[str, Any],
    corpus: Path,
    tokenizer: Tokenizer,
    ranks: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "kogpt")
    old_run, run = make_run(tmp_path / "base", without_roles(tokenizer), arch, **shape), tmp_path / "chat"
    train_here(_line(corpus, run, 2, "--init", str(old_run)), ranks)
    assert f"has no rows for {' '.join(ROLE_PIECES)}: they start at the mean of all others" in caplog.text
    before, after = load_for_inference(old_run).model, load_for_inference(run, checkpoint=0).model
    grown, base = after.state_dict(), before.state_dict()
    rows = before.config.vocab_size
    for name, value in base.items():
        assert torch.equal(grown[name][: len(value)], value), name
        if name in before.VOCABULARY:
            assert len(grown[name]) == rows + len(ROLE_PIECES)
            assert torch.allclose(grown[name][rows:], value.mean(0), atol=1e-6)
    assert open_tokenizer(run / "tokenizer").roles is not None
    trained = load_for_inference(run, checkpoint="last").info
    assert trained["init"] | {"run": "base", "step": 5, "corpus": "c0ffee" * 10} == trained["init"]
    assert f"before step 1: validation loss {trained['init']['val_loss']:.4f}" in caplog.text
    assert losses(run)[0] < 2 * math.log(rows), "it begins with what it has learnt"


def test_it_resumes_without_init(corpus: Path, old_run: Path, ranks: Any, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "kogpt")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    init = ["--init", str(old_run)]
    every = ["--save-every", "2"]
    train_here(_line(corpus, whole, 4, *every, *init), ranks)
    train_here(_line(corpus, cut, 4, *every, "--resume", "never", *init), ranks)
    assert losses(cut) == losses(whole)
    for folder in sorted((cut / "checkpoints").glob("step-*"))[-1:]:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    train_here(_line(corpus, cut, 4, *every), ranks)
    assert losses(cut) == losses(whole)
    assert [record["lr"] for record in records(cut)] == [record["lr"] for record in records(whole)]
    gone = ["--init", str(tmp_path / "gone")]
    train_here(_line(corpus, whole, 4, *every, *gone), ranks)
    with pytest.raises(UserError, match="gone is not a folder; name a run"):
        train_here(_line(corpus, tmp_path / "new", 4, *gone), ranks)
    rates = [record["lr"] for record in records(whole)]
    assert rates[-1] == 0, "the warm-down of a fine-tuning ends at 0, also when it goes on"
    train_here(_line(corpus, cut, 5, *every, *init), ranks)
    assert "goes on from a checkpoint, so --init" in caplog.text


def test_what_does_not_fit_is_refused_in_a_sentence(
    corpus: Path, run: Path, old_run: Path, ranks: Any, tmp_path: Path
) -> None:
    other = make_tokenizer()
    foreign = write_corpus(tmp_path / "foreign", other, encoded(other, constitution()))
    cases: list[tuple[Path, Path, list[str], str]] = [
        (foreign, run, [], r"--init .*step-00000005 does not fit the corpus .*foreign: it has another vocabulary"),
        (corpus, old_run, ["--depth", "2"], "has n_layer 1, not 2, n_head 1, not 2, n_embd 64, not 128"),
        (corpus, tmp_path, [], "holds no usable checkpoint"),
    ]
    for folder, base, more, said in cases:
        with pytest.raises(UserError, match=said):
            train_here(_line(folder, tmp_path / "out", 1, "--init", str(base), *more), ranks)
        assert not (tmp_path / "out" / "checkpoints").exists()


def test_run_json_says_what_it_was_trained_on(corpus: Path, old_run: Path, ranks: Any, tmp_path: Path) -> None:
    train_here(_line(corpus, tmp_path / "run", 1, "--init", str(old_run)), ranks)
    [data] = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert (data["name"], data["folder"], data["share"], data["replayed"]) == ("corpus", str(corpus), 1.0, False)
