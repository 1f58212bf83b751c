"""What goes on from a checkpoint: a branch into another folder, a longer context, and --init with another context."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import make_run
from engines import train_here
from trainings import copy_as_of, deepspeed_file, flags, losses, records

from kogpt.checkpoint.layout import CONFIG, step_folder
from kogpt.checkpoint.load import load_for_inference
from kogpt.common.errors import UserError
from kogpt.tokenizer.wordpiece import Tokenizer


def line(corpus: Path, run: Path, batch: int, steps: int, context: int, *more: str) -> list[str]:
    """A command line with this global batch and context."""
    file = deepspeed_file(run.with_name(f"{batch}.json"), 0)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"train_batch_size": batch}))
    return [*flags(corpus, run, file, steps, "--schedule", "wsd", "--decay", "0", *more), "--max-seq-len", str(context)]


QWEN3 = ("--arch", "qwen3", "--kv-heads", "1")


def again(*words: Any) -> list[str]:
    """The command line without the model's flags, which a resumed run takes from its checkpoint."""
    return line(*words)[4:]  # --arch and --depth


def test_the_command_that_begins_a_branch_goes_on_with_it(
    corpus: Path, ranks: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kogpt")
    run, branch = tmp_path / "run", tmp_path / "branch"
    train_here(line(corpus, run, 8, 4, 16, "--save-every", "2"), ranks)

    def command(out: Path) -> list[str]:
        return line(corpus, out, 8, 6, 16, "--save-every", "2", "--resume", str(step_folder(run, 2)))

    train_here(command(branch), ranks)
    killed, other = copy_as_of(branch, 4, tmp_path / "killed"), copy_as_of(run, 4, tmp_path / "other")
    for holds_newer in (run, other):
        with pytest.raises(UserError, match=r"holds newer checkpoints \(step-00000004\)"):
            train_here(command(holds_newer), ranks)
    shutil.rmtree(step_folder(run, 2))
    caplog.clear()
    train_here(command(killed), ranks)
    assert f"{killed} has gone on from --resume {step_folder(run, 2)}" in caplog.text
    assert "Continuing after step 4" in caplog.text
    assert losses(killed) == losses(branch)
    config = json.loads((step_folder(killed, 6) / CONFIG).read_bytes())
    assert config["branch_of"] == "run/checkpoints/step-00000002", "it can be continued a third time"
    with pytest.raises(UserError, match="step-00000002 is neither auto, never nor a checkpoint folder"):
        train_here(command(tmp_path / "new"), ranks)


def test_the_context_grows_and_the_counts_go_on(
    corpus: Path, ranks: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kogpt")
    run = tmp_path / "run"
    train_here(line(corpus, run, 8, 4, 16, *QWEN3), ranks)
    train_here(line(corpus, run, 4, 8, 32, *QWEN3), ranks)
    assert "The context grows from 16 to 32 tokens, with 4 windows a step. Positions from 16 on are new" in caplog.text
    found = records(run)
    assert [record["tokens"] for record in found] == [128 * step for step in range(1, 9)]
    epochs = [record["epoch"] for record in found]
    assert epochs == pytest.approx([epochs[0] * step for step in range(1, 9)], rel=1e-2)
    assert found[4]["lr"] == found[3]["lr"]
    assert abs(found[4]["loss"] - found[3]["loss"]) < 0.5, "the weights are those of before"
    assert load_for_inference(run).model.config.max_seq_len == 32
    train_here(again(corpus, run, 4, 9, 32), ranks)
    assert len(records(run)) == 9


def test_what_does_not_fit_is_refused(corpus: Path, ranks: Any, tmp_path: Path) -> None:
    run, learned = tmp_path / "run", tmp_path / "learned"
    train_here(line(corpus, run, 4, 1, 32, *QWEN3), ranks)
    train_here(line(corpus, learned, 8, 1, 16), ranks)
    with pytest.raises(UserError, match=r'has 128 tokens.*from 32 to 64; set "train_batch_size" .* to 2'):
        train_here(again(corpus, run, 4, 2, 64), ranks)
    with pytest.raises(UserError, match=r"from 32 to 48; give --max-seq-len a divisor of 128"):
        train_here(again(corpus, run, 4, 2, 48), ranks)
    with pytest.raises(UserError, match="max_seq_len is 16 instead of 32"):
        train_here(again(corpus, run, 8, 2, 16), ranks)
    with pytest.raises(UserError, match="max_seq_len is 32 instead of 16"):
        train_here(line(corpus, learned, 4, 2, 32), ranks)


def test_init_takes_any_context_with_rotary_positions(
    corpus: Path, tokenizer: Tokenizer, ranks: Any, tmp_path: Path
) -> None:
    for arch, context in (("qwen3", 64), ("qwen3", 16), ("gpt2", 64)):
        base, run = make_run(tmp_path / arch / "base", tokenizer, arch), tmp_path / f"{arch}-{context}"
        words = [*again(corpus, run, 8, 1, context), "--init", str(base)]
        if arch == "gpt2":
            with pytest.raises(UserError, match="max_seq_len 32, not 64"):
                train_here(words, ranks)
        else:
            train_here(words, ranks)
            assert load_for_inference(run).model.config.max_seq_len == context
