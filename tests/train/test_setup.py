"""Whose word counts: a flag, the DeepSpeed file, the run that is resumed, the dial. And old runs, which keep theirs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import bills, encoded, make_run, write_corpus
from engines import train_here

from kogpt.checkpoint.layout import CONFIG, step_folders
from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.wordpiece import Tokenizer
from kogpt.train.corpora import open_corpora
from kogpt.train.deepspeed_file import ADAM_DEFAULTS, MUON_DEFAULTS, completed, read
from kogpt.train.older_runs import recipe_of
from kogpt.train.options import parse
from kogpt.train.recipe import TUNING_LR, Length, Recipe, adamw, dial, tuned
from kogpt.train.setup import Setup, settle

OLD = Path(__file__).parents[1] / "fixtures" / "version-0.1"


def _file(path: Path, **content: Any) -> str:
    path.write_text(json.dumps({"zero_optimization": {"stage": 0}, **content}))
    return str(path)


def _words(corpus: Path, out: Path, *more: str) -> list[str]:
    quiet = ["--stride", "16", "--prompts", "--compile", "off", "--wandb", "off"]
    return ["--corpus", str(corpus), "--out", str(out), "--max-seq-len", "32", *quiet, *more]


def _settled(ranks: Any, corpus: Path, out: Path, *more: str) -> Setup:
    options = parse(_words(corpus, out, *more))
    return settle(options, read(options.run.deepspeed_config), open_corpora(options.corpora), ranks)


def test_the_shipped_file_leaves_everything_to_the_dial(corpus: Path, ranks: Any, tmp_path: Path) -> None:
    found = _settled(ranks, corpus, tmp_path / "run", "--depth", "1")
    assert found.config.arch == "qwen3"
    windows = open_corpora(parse(_words(corpus, tmp_path)).corpora).epoch(found.batches)
    assert found.recipe == replace(dial(found.config.parameter_count, 32, windows), attend="article")
    assert found.content["optimizer"] == found.recipe.optimizer
    assert found.content["train_batch_size"] == found.recipe.batch
    note, sources = found.notes
    for rule in ("width of 64 per layer", "heads of 128: nanochat", "Hoffmann", "Muennighoff", "torch.optim.Muon"):
        assert rule in sources
    assert "AdamW's share of Muon's learning rate, attention of qwen3, warm-up, and fall: measured" in sources
    assert "(qwen3, 64 wide, heads of 128)" in note
    assert f"Muon, learning rate {found.recipe.optimizer['params']['lr']:g}, weight decay 0.1; attention within" in note


def test_articles_are_kept_apart_unless_a_flag_or_the_run_says_otherwise(
    corpus: Path, ranks: Any, tmp_path: Path
) -> None:
    def attention(out: Path, *more: str) -> tuple[str, bool]:
        found = _settled(ranks, corpus, out, "--depth", "1", "--steps", "1", *more)
        return found.recipe.attend, found.batches.has_documents

    run = tmp_path / "run"
    assert attention(run) == ("article", True)
    assert attention(run, "--arch", "gpt2") == ("window", False)
    train_here(_words(corpus, run, "--depth", "1", "--steps", "1", "--attend", "window"), ranks)
    assert attention(run) == ("window", False)
    assert attention(run, "--attend", "article") == ("article", True)
    config = json.loads((step_folders(run)[0] / CONFIG).read_bytes())
    del config["recipe"]["attend"]
    (step_folders(run)[0] / CONFIG).write_text(json.dumps(config))
    assert attention(run) == ("window", False), "a run from before --attend"


def test_a_flag_then_the_file_then_the_run_then_the_dial(corpus: Path, ranks: Any, tmp_path: Path) -> None:
    run, adam = tmp_path / "run", completed(adamw(0.003))
    file = _file(tmp_path / "ds.json", train_batch_size=6, optimizer=adam)
    first = ("--depth", "1", "--deepspeed-config", file, "--steps", "2", "--schedule", "cosine")
    found = _settled(ranks, corpus, run, *first)
    assert (found.recipe.batch, found.recipe.steps, found.recipe.optimizer) == (6, 2, adam)
    assert (found.recipe.schedule, found.recipe.min_lr_ratio) == ("cosine", 0.0), "a flag, and the dial"
    train_here(_words(corpus, run, *first), ranks)
    resumed = _settled(ranks, corpus, run)
    assert resumed.recipe.optimizer["params"].items() >= adam["params"].items()
    assert (resumed.recipe.batch, resumed.recipe.steps, resumed.recipe.schedule) == (6, 2, "cosine")
    assert resumed.config == found.config
    assert not resumed.notes
    other = _file(tmp_path / "other.json", optimizer=adamw(0.001))
    again = _settled(ranks, corpus, run, "--deepspeed-config", other, "--epochs", "1", "--warmup", "0.5")
    assert again.recipe.optimizer == completed(adamw(0.001))
    assert (again.recipe.batch, again.recipe.warmup) == (6, 0.5)
    windows = open_corpora(parse(_words(corpus, run)).corpora).epoch(again.batches)
    assert again.recipe.steps == Length(epochs=1).in_steps(step_tokens=192, windows=windows, batch=6)


def test_a_length_keeps_to_max_repeat_unless_a_longer_one_is_said(
    corpus: Path, tokenizer: Tokenizer, ranks: Any, tmp_path: Path
) -> None:
    """Lengths in tokens and epochs are rounded up to whole steps, for which there may be too few windows."""
    other = write_corpus(tmp_path / "bills", tokenizer, encoded(tokenizer, bills()[:3], "kobill"))
    file = _file(tmp_path / "ds.json", train_batch_size=100)

    def line(*more: str) -> list[str]:
        words = _words(corpus, tmp_path / "run", "--depth", "1", "--deepspeed-config", file, *more)
        return [words[0], f"{corpus}=0.8", f"{other}=0.2", *words[2:]]

    def settled(*more: str) -> Setup:
        options = parse(line(*more))
        corpora = open_corpora(options.corpora, max_repeat=options.run.max_repeat)
        found = settle(options, read(options.run.deepspeed_config), corpora, ranks)
        corpora.check_length(found.batches, found.recipe.steps, found.recipe.batch)
        return found

    once, four = ("--max-repeat", "1"), ("--max-repeat", "4")
    windows = settled(*once).batches.mixture.samples
    assert windows is not None
    assert 4 * windows % 100
    assert settled(*once).recipe == settled("--tokens", str(32 * windows), *once).recipe, "the dial, too, knows it"
    for said in ((), ("--epochs", "4"), ("--tokens", str(4 * 32 * windows))):
        assert settled(*said, *four).recipe.steps == 4 * windows // 100
    for said in (("--epochs", "5"), ("--tokens", str(5 * 32 * windows)), ("--steps", str(4 * windows // 100 + 1))):
        with pytest.raises(UserError, match=f"train at most {4 * windows // 100} steps"):
            settled(*said, *four)
    train_here(line("--epochs", "1", *once), ranks)
    for said in ((), ("--epochs", "1")):
        assert settled(*said, *once).recipe.steps == windows // 100, "resumed"


def test_a_resumed_run_keeps_its_length_against_max_repeat(corpus: Path, ranks: Any, tmp_path: Path) -> None:
    """A shorter one would fall at another step. The fingerprint of one corpus does not say how often it may be read."""
    words = _words(corpus, tmp_path / "run", "--depth", "1", "--deepspeed-config")
    file = _file(tmp_path / "ds.json", train_batch_size=100)
    steps = train_here([*words, file, "--epochs", "2"], ranks).steps
    with pytest.raises(UserError, match=f"a training of {steps} steps reads .*, but --max-repeat allows only"):
        train_here([*words, file, "--max-repeat", "1"], ranks)


def test_a_longer_context_keeps_the_tokens_of_a_step(corpus: Path, ranks: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = _words(corpus, run, "--depth", "1", "--tokens", "300")
    words[words.index("--max-seq-len") + 1] = "16"
    short = train_here(words, ranks)
    longer = train_here(_words(corpus, run, "--steps", str(short.steps + 1)), ranks)
    assert (longer.tokens_per_step, longer.step) == (short.tokens_per_step, short.steps + 1)


def test_an_old_run_keeps_everything(ranks: Any, tmp_path: Path) -> None:
    """The run of version 0.1 was made with AdamW, 0.003, 4 windows of 32, 12 steps, a cosine."""
    run = shutil.copytree(OLD / "run", tmp_path / "run")
    bare = _file(tmp_path / "bare.json", train_micro_batch_size_per_gpu=2, gradient_clipping=1.0)
    words = _words(OLD / "corpus", run, "--deepspeed-config", bare, "--eval-every", "6", "--save-every", "6")
    trainer = train_here(words, ranks)
    about = json.loads((OLD / "run" / "run.json").read_text())
    assert trainer.config.arch == "gpt2"
    assert trainer.recipe.optimizer == {"type": "AdamW", "params": about["adam"]}
    assert (trainer.recipe.batch, trainer.steps, trainer.recipe.schedule) == (4, 12, "cosine")
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run, OLD / "run")
    ]
    for name in ("loss", "lr"):
        found, expected = ([record[name] for record in records] for records in lines)
        assert found == pytest.approx(expected, abs=2e-5)


def test_an_old_run_that_is_resumed_twice_before_a_save_keeps_its_schedule(ranks: Any, tmp_path: Path) -> None:
    run = shutil.copytree(OLD / "run", tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    about["options"]["schedule"] |= {"schedule": "wsd", "warmup": 0.25, "decay": 0.3}
    (run / "run.json").write_text(json.dumps(about))
    begun = step_folders(run)
    bare = _file(tmp_path / "bare.json", train_micro_batch_size_per_gpu=2, gradient_clipping=1.0)
    words = _words(OLD / "corpus", run, "--deepspeed-config", bare)
    first = train_here(words, ranks)
    assert (first.recipe.schedule, first.recipe.warmup, first.recipe.decay) == ("wsd", 0.25, 0.3)
    for folder in {*step_folders(run)} - {*begun}:
        shutil.rmtree(folder)
    options = parse(words)
    again = settle(options, read(options.run.deepspeed_config), open_corpora(options.corpora), ranks)
    assert again.recipe == first.recipe


def test_the_optimizer_of_a_file_is_completed(corpus: Path, ranks: Any, tmp_path: Path) -> None:
    """Every part of it may be missing: the dial says it, if that has the same type, or the base of a fine-tuning."""

    def settled(*more: str, **optimizer: Any) -> dict[str, Any]:
        file = _file(tmp_path / "ds.json", optimizer=optimizer)
        found = _settled(ranks, corpus, tmp_path / "new", "--depth", "1", "--deepspeed-config", file, *more)
        assert found.content["optimizer"] == found.recipe.optimizer
        return found.recipe.optimizer

    assert settled() == {"type": "AdamW", "params": ADAM_DEFAULTS}
    assert settled(params={"lr": 0.01}) == {"type": "AdamW", "params": ADAM_DEFAULTS | {"lr": 0.01}}
    by_size = completed(_settled(ranks, corpus, tmp_path / "new", "--depth", "1").recipe.optimizer)
    assert settled(type="Muon") == by_size
    assert settled(type="Muon", params={"momentum": 0.9})["params"] == by_size["params"] | {"momentum": 0.9}
    assert settled(type="Muon", params={"lr": 0.01})["params"] == MUON_DEFAULTS | {"lr": 0.01}
    base = tmp_path / "base"
    file = _file(tmp_path / "muon.json", train_batch_size=4, optimizer={"type": "Muon", "params": {"lr": 0.03}})
    train_here(_words(corpus, base, "--depth", "1", "--steps", "1", "--deepspeed-config", file), ranks)
    found = _settled(ranks, corpus, tmp_path / "next", "--init", str(base)).recipe.optimizer
    assert found["params"] == MUON_DEFAULTS | {"lr": TUNING_LR * 0.03}


def test_an_optimizer_of_a_file_leaves_the_rest_to_the_run(corpus: Path, ranks: Any, tmp_path: Path) -> None:
    """One with half of its keys, on a run that is resumed and in a fine-tuning of it."""
    run, own = tmp_path / "run", {"lr": 0.03, "adam_lr": 0.007, "momentum": 0.8}
    file = _file(tmp_path / "ds.json", train_batch_size=4, optimizer={"type": "Muon", "params": own})
    train_here(_words(corpus, run, "--depth", "1", "--steps", "1", "--deepspeed-config", file), ranks)

    def params(out: Path, *more: str, **said: Any) -> dict[str, Any]:
        half = _file(tmp_path / "half.json", optimizer={"type": "Muon", "params": said})
        return _settled(ranks, corpus, out, "--deepspeed-config", half, *more).recipe.optimizer["params"]

    assert params(run, weight_decay=0.05) == MUON_DEFAULTS | own | {"weight_decay": 0.05}
    without = {name: value for name, value in own.items() if name != "adam_lr"}
    assert params(run, lr=0.01) == MUON_DEFAULTS | without | {"lr": 0.01}, "one learning rate stands for all"
    assert params(run, adam_lr=0.002) == MUON_DEFAULTS | own | {"adam_lr": 0.002}, "Muon's is still that of the run"
    slower = {"lr": TUNING_LR * 0.03, "adam_lr": TUNING_LR * 0.007}
    tuned_ = params(tmp_path / "next", "--init", str(run), weight_decay=0.0)
    assert tuned_ == MUON_DEFAULTS | own | slower | {"weight_decay": 0.0}


def test_ranks_that_cannot_divide_the_batch_of_the_run_are_refused(corpus: Path, ranks: Any, tmp_path: Path) -> None:
    """No file names that batch, so the message is not about the file."""
    run = tmp_path / "run"
    named = _file(tmp_path / "ds.json", train_batch_size=4)
    train_here(_words(corpus, run, "--depth", "1", "--steps", "1", "--deepspeed-config", named), ranks)
    three = replace(ranks, world_size=3)
    with pytest.raises(
        UserError, match=r"4 windows of 32 tokens, which 3 ranks .*; use another number of ranks: 2 or 4\."
    ):
        _settled(three, corpus, run)
    with pytest.raises(UserError, match=r"2 windows of 64 tokens, which 4 ranks .*; use another number of ranks: 2\."):
        _settled(replace(ranks, world_size=4), corpus, run, "--max-seq-len", "64")


@pytest.mark.parametrize(("file", "share"), [("/far/away/ds_config.json", TUNING_LR), ("/far/away/mine.json", 1.0)])
def test_an_old_fine_tuning_goes_on_with_its_share_of_the_learning_rate(
    file: str, share: float, tmp_path: Path
) -> None:
    about = {
        "steps": 40,
        "options": {"schedule": {"schedule": None, "warmup": 0.1, "decay": None}, "run": {"deepspeed_config": file}},
        "adam": {"lr": 0.0006, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.0},
        "muon": {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1, "ns_method": "standard"},
    }
    (tmp_path / "run.json").write_text(json.dumps(about))
    found = recipe_of(tmp_path / "checkpoints" / "step-1", {"global_batch": 8, "init": {}})
    assert {name: found[name] for name in ("schedule", "warmup", "decay", "min_lr_ratio", "batch", "steps")} == {
        "schedule": "wsd",
        "warmup": 0.1,
        "decay": 0.5,
        "min_lr_ratio": 0.0,
        "batch": 8,
        "steps": 40,
    }
    assert found["optimizer"]["type"] == "Muon"
    assert found["optimizer"]["params"]["lr"] == share * 0.02
    assert found["optimizer"]["params"]["adam_lr"] == share * 0.0006
    recipe = Recipe(**found).to_dict()
    resumed = about | {"options": {}, "adam": {"lr": share * 0.0006}, "muon": {"lr": share * 0.02}, "recipe": recipe}
    (tmp_path / "run.json").write_text(json.dumps(resumed))
    again = recipe_of(tmp_path / "checkpoints" / "step-1", {"global_batch": 8, "init": {}})
    assert again == found | {"attend": "window"}, "resumed a second time, before a save"


def test_an_imported_model_is_trained_as_ever(tmp_path: Path) -> None:
    found = recipe_of(tmp_path / "checkpoints" / "step-0", {"model": {}})
    assert found == {
        "schedule": "cosine",
        "warmup": 0.05,
        "decay": 0.2,
        "min_lr_ratio": 0.1,
        "batch": 64,
        "steps": 200,
        "optimizer": adamw(6e-4),
    }


def test_fine_tuning_takes_the_optimizer_of_its_base(
    corpus: Path, tokenizer: Tokenizer, ranks: Any, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    train_here(_words(corpus, base, "--depth", "1", "--steps", "1"), ranks)
    optimizer = json.loads((step_folders(base)[0] / CONFIG).read_text())["recipe"]["optimizer"]
    assert optimizer["type"] == "Muon"
    found = _settled(ranks, corpus, tmp_path / "next", "--init", str(base))
    assert found.recipe.optimizer == tuned(completed(optimizer))
    assert "Muon, learning rate" in found.notes[0]
    named = _file(tmp_path / "ds.json", optimizer=adamw(0.003))
    found = _settled(ranks, corpus, tmp_path / "next", "--init", str(base), "--deepspeed-config", named)
    assert found.recipe.optimizer == completed(adamw(0.003)), "a file keeps its learning rate"
    old = make_run(tmp_path / "old", tokenizer, "gpt2")
    assert _settled(ranks, corpus, tmp_path / "next", "--init", str(old)).recipe.optimizer == tuned(adamw(1))


def test_runs_say_their_recipe(corpus: Path, ranks: Any, tmp_path: Path) -> None:
    trainer = train_here(_words(corpus, tmp_path / "run", "--depth", "1", "--steps", "1"), ranks)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["recipe"] == trainer.recipe.to_dict()
    assert TokenCorpus.open(corpus).fingerprint == about["corpus"]
