"""The plan keeps to the hours, the epochs, and the memory; more of each is never worse. And `kogpt plan` itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import bills, encoded, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt.common.errors import UserError
from kogpt.common.flags import WeightedPath
from kogpt.model.config import ModelConfig
from kogpt.model.qwen3 import Qwen3Config
from kogpt.plan.machine import Machine, named
from kogpt.plan.plan import Corpus, best_plan, plan_for
from kogpt.plan.run import command, left_over, make_plan
from kogpt.tokenizer.wordpiece import Tokenizer
from kogpt.train.corpora import open_corpora
from kogpt.train.deepspeed_file import read
from kogpt.train.distributed import Ranks
from kogpt.train.memory import HEADROOM
from kogpt.train.options import DEFAULT_FILE, parse
from kogpt.train.planner import estimate
from kogpt.train.recipe import MOST_EPOCHS, Length, dial
from kogpt.train.setup import settle

MACHINE = Machine(1, 1e-5, 1e11, 10**10, "cuda", bf16=True, deepspeed=True)
CORPUS = Corpus(10**8, 1.6, 400_000)


def _config(depth: int) -> ModelConfig:
    return Qwen3Config(8000, 256, **Qwen3Config.shape_of_depth(depth))


@settings(max_examples=15, deadline=None)
@given(
    depth=st.integers(1, 12),
    hours=st.floats(0.01, 1000),
    tokens=st.integers(10**4, 10**11),
    speed=st.floats(1e10, 1e16),
    devices=st.sampled_from([1, 2, 8]),
)
def test_a_plan_keeps_to_what_there_is(depth: int, hours: float, tokens: int, speed: float, devices: int) -> None:
    machine, corpus = replace(MACHINE, speed=speed, devices=devices), replace(CORPUS, tokens=tokens)
    try:
        plan = plan_for(depth, _config(depth), corpus, machine, hours)
    except UserError:
        return
    assert plan.hours <= hours * 1.001
    assert 0 < plan.epochs <= MOST_EPOCHS
    assert plan.memory * HEADROOM["gpu"] <= machine.memory


@settings(max_examples=8, deadline=None)
@given(hours=st.floats(0.1, 30), more=st.floats(2, 20))
def test_more_hours_are_not_worse(hours: float, more: float) -> None:
    less, longer = (best_plan(_config, CORPUS, MACHINE, h)[0] for h in (hours, hours * more))
    assert longer.bits.expected <= less.bits.expected + 0.01, "up to the rounding of steps"
    assert longer.depth >= less.depth


def test_a_small_corpus_gets_a_small_model_and_leaves_hours_over() -> None:
    best = best_plan(_config, replace(CORPUS, tokens=6_000_000), replace(MACHINE, speed=1e15), 100)[0]
    assert best.parameters < 6_000_000 < _config(best.depth + 1).parameter_count
    assert best.epochs == MOST_EPOCHS
    for hours, said in ((3000.4, "3,000 hours"), (0.5, "30 minutes"), (0.001, "4 seconds")):
        words = left_over(replace(best, hours=hours), 10_000)
        assert f"takes only {said}, not --hours 10000: it ends after 4 epochs" in str(words)
    assert left_over(replace(best, hours=99), 100) is None
    assert left_over(replace(best, epochs=3.9), 100) is None, "a single step is longer than what is left"


@pytest.mark.parametrize(("name", "count", "hours"), [("H100", 8, 1000), ("H100", 1, 12), ("T4", 1, 5)])
def test_the_best_has_a_sound_size(name: str, count: int, hours: float) -> None:
    """Not far from the 20 tokens per parameter of Hoffmann et al. 2022."""
    best, *others = best_plan(_config, replace(CORPUS, tokens=10**11), named(name, count, 0.35), hours)
    assert 15 < best.ratio < 30
    assert best.hours > 0.99 * hours
    assert {best.depth - 1, best.depth + 1} <= {plan.depth for plan in others}


def test_a_corpus_too_small_for_any_model_gets_the_smallest() -> None:
    assert best_plan(_config, replace(CORPUS, tokens=100_000), MACHINE, 1)[0].depth == 1


@settings(max_examples=20, deadline=None)
@given(
    context=st.sampled_from([2, 37, 256, 1000, 4096]),
    depth=st.integers(1, 12),
    devices=st.sampled_from([1, 2, 3, 8, 64]),
    windows=st.integers(1, 10**7),
    hours=st.floats(0.01, 1000),
)
def test_the_command_is_exactly_the_plan(context: int, depth: int, devices: int, windows: int, hours: float) -> None:
    shape = Qwen3Config(8000, context, **Qwen3Config.shape_of_depth(depth))
    machine, corpus = replace(MACHINE, devices=devices, memory=10**12), Corpus(windows * context, 1.6, 400_000)
    try:
        plan = plan_for(depth, shape, corpus, machine, hours)
    except UserError:
        return
    words = command(plan, [WeightedPath(Path("corpus"))], machine, hours, context).split()
    ranks = int(words[words.index("--num_gpus") + 1]) if "--num_gpus" in words else 1
    if "--hostfile" in words:
        ranks = devices
    assert ("--hostfile" in words) == (devices > 8)
    options = parse(words[words.index("launch/train.py") + 1 :])
    length = Length(tokens=options.schedule.tokens)
    assert plan.recipe == dial(shape.parameter_count, context, windows, ranks=ranks, length=length)
    assert plan.recipe.batch % devices == 0
    assert options.run.eval_every == plan.eval_every
    assert options.run.out not in (None, Path(f"runs/depth-{depth}"))


@pytest.mark.parametrize(("device", "bf16", "devices"), [("cuda", True, 8), ("cuda", False, 1), ("cpu", True, 1)])
def test_the_memory_is_that_of_the_training(device: str, bf16: bool, devices: int) -> None:
    machine = replace(MACHINE, device=device, bf16=bf16, devices=devices, memory=10**11)
    plan = plan_for(4, _config(4), CORPUS, machine, 1)
    engine = machine.engine(DEFAULT_FILE, {"train_batch_size": plan.recipe.batch, "optimizer": plan.recipe.optimizer})
    ranks = Ranks(0, devices, 0, devices, torch.device(device))
    assert plan.memory == estimate(_config(4), engine, ranks, document_mask=True).total
    assert engine.micro_batch <= plan.recipe.batch // devices


def test_the_best_comes_first_and_has_neighbours() -> None:
    best, *others = best_plan(_config, CORPUS, MACHINE, 5)
    assert others
    assert all(best.bits.expected < other.bits.expected for other in others)
    assert {abs(other.depth - best.depth) for other in others} <= {1, 2}


def test_a_model_that_does_not_fit_is_cut_or_left_out() -> None:
    small = replace(MACHINE, memory=10**9, speed=1e16)
    assert best_plan(_config, CORPUS, small, 100)[0].memory < 10**9
    shared = replace(small, devices=8)
    assert best_plan(_config, CORPUS, shared, 100)[-1].zero_stage in (2, 3)
    with pytest.raises(UserError, match=r"depth 1 .* does not fit the 0.0 GiB .* a smaller --max-seq-len") as raised:
        best_plan(_config, CORPUS, replace(MACHINE, memory=10**6), 1)
    assert "--hours" not in str(raised.value)


def test_the_command_plans_for_a_gpu(corpus: Path, kogpt: Callable) -> None:
    done = kogpt("plan", "--corpus", corpus, "--hours", "12", "--gpu", "H100", "--gpus", "8", "--mfu", "0.4")
    assert done.returncode == 0, done.stderr
    assert "8 x H100: 989 TFLOP/s each, of which training gets 40%" in done.stdout
    assert f"deepspeed --num_gpus 8 launch/train.py --corpus {corpus} --out runs/plan-12h-depth-" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hours", "0"], "--hours is 0.0; give more than 0"),
        (["--hours", "1", "--gpu", "abacus"], "--gpu abacus is unknown; give one of T4"),
        (["--hours", "1", "--gpus", "2"], "--gpus 2 needs the name of the GPUs"),
        (["--hours", "1e-9", "--gpu", "T4"], "cannot make a single step"),
    ],
)
def test_bad_input_ends_in_a_sentence(words: list[str], said: str, corpus: Path, kogpt: Callable) -> None:
    done = kogpt("plan", "--corpus", corpus, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_plan_is_a_training(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The printed command is read by launch/train.py's parser, and means the plan's tokens."""
    from kogpt.plan import run

    monkeypatch.setattr(run, "MEASURED_SECONDS", 0.3)
    monkeypatch.setattr("kogpt.plan.machine.DEPTHS", {"cpu": (1,), "cuda": (1,)})
    _, plans, command = run.make_plan([WeightedPath(corpus)], 0.01, None, None, 0.4, 32)
    best = plans[0]
    words = command.split()
    options = parse(words[words.index("launch/train.py") + 1 :])
    assert (options.model.depth, options.model.max_seq_len) == (best.depth, 32)
    assert options.schedule.tokens == best.tokens
    assert options.run.eval_every == best.eval_every


def test_a_mixture_is_planned_as_it_is_trained(corpus: Path, tokenizer: Tokenizer, ranks: Any, tmp_path: Path) -> None:
    """Its epoch, its batch, and its steps, from the printed command; a corpus without validation texts, too."""
    other = write_corpus(tmp_path / "bills", tokenizer, encoded(tokenizer, bills()[:4], "kobill"), val_fraction=0)
    both = [WeightedPath(corpus, 0.7), WeightedPath(other, 0.3)]
    _, plans, command = make_plan(both, 1, "T4", 2, 0.4, 32)
    words = command.split()
    options = parse(words[words.index("launch/train.py") + 1 :])
    assert options.corpora == tuple(both)
    opened = open_corpora(options.corpora)
    setup = settle(options, read(options.run.deepspeed_config), opened, replace(ranks, world_size=2))
    assert replace(setup.recipe, attend="window") == plans[0].recipe
    assert plans[0].tokens == 4 * 32 * opened.epoch(setup.batches), "so small a corpus is read four times"
    with pytest.raises(UserError, match="has no share; give each of several one"):
        make_plan([WeightedPath(corpus), WeightedPath(other)], 1, "T4", None, 0.4, 32)
