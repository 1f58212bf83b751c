"""The dial: its anchor, how its values grow, what is given, lengths in three units, and fine-tuning."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt.common.errors import UserError
from kogpt.train.recipe import (
    BEST_STEP,
    FEW_TOKENS,
    LR,
    MOST_EPOCHS,
    STEP_TOKENS,
    TOKENS,
    TUNING_EPOCHS,
    TUNING_LR,
    Length,
    Recipe,
    adamw,
    best_lr,
    best_step,
    best_step_for,
    changed,
    dial,
    dividing,
    enough_tokens,
    muon,
    tuned,
    tuning,
)

SIZES = {"parameters": st.integers(10**5, 10**10), "windows": st.integers(1, 10**9), "ranks": st.integers(1, 100)}


def test_the_anchors_are_what_was_measured_and_the_other_end_is_nanochat_s() -> None:
    assert (best_step(TOKENS), best_lr(TOKENS, STEP_TOKENS)) == (STEP_TOKENS, LR)
    assert best_step(FEW_TOKENS) == BEST_STEP
    assert (best_step(11e9), best_lr(11e9, 1 << 19)) == (1 << 19, pytest.approx(0.02, rel=0.02))


def test_the_numbers_of_ranks_nearest_to_one_that_cannot_divide_a_batch() -> None:
    assert dividing(512, 24) == "16 or 32"
    assert dividing(60, 7) == "6 or 10"
    assert dividing(4, 5) == "4"
    assert dividing(7, 2) == "1 or 7"


@given(**SIZES)
def test_a_new_run_is_long_enough_and_its_ranks_divide_the_batch(parameters: int, windows: int, ranks: int) -> None:
    recipe = dial(parameters, 256, windows, ranks=ranks)
    tokens = recipe.steps * recipe.batch * 256
    wanted = enough_tokens(parameters, windows * 256)
    assert wanted <= tokens < wanted + recipe.batch * 256
    assert wanted <= MOST_EPOCHS * windows * 256
    assert recipe.batch % ranks == 0
    assert 0 < recipe.optimizer["params"]["lr"] < 2


@given(few=st.floats(1e4, 1e13), more=st.floats(1, 1e3))
def test_longer_trainings_have_larger_steps_but_not_fewer_of_them(few: float, more: float) -> None:
    one, other = best_step(few), best_step(few * more)
    assert one <= other
    assert other / one <= 2 * more, "up to the rounding to a power of two"
    assert best_lr(few * more, one) <= best_lr(few, one)


@given(steps=st.integers(1, 10**7))
def test_the_batch_of_a_number_of_steps_is_that_of_their_tokens(steps: int) -> None:
    step = best_step_for(steps)
    assert abs(math.log2(best_step(steps * step) / step)) <= 2, "up to the rounding of both"


def test_what_is_given_is_kept_and_the_rest_follows() -> None:
    length = Length(tokens=1e9)
    recipe = dial(10**7, 256, 10**5, length=length, batch=48)
    assert recipe.batch == 48
    assert recipe.steps == math.ceil(1e9 / (48 * 256))
    assert recipe.optimizer == muon(best_lr(recipe.steps * 48 * 256, 48 * 256))
    assert dial(10**7, 256, 10**5, length=Length(steps=7)).steps == 7
    longer = dial(10**7, 1024, 10**5, length=length)
    assert longer.batch * 1024 == dial(10**7, 256, 10**5, length=length).batch * 256, "a step has as many tokens"
    assert changed(recipe, schedule="cosine", warmup=None, optimizer=None) == Recipe(
        48, recipe.steps, recipe.optimizer, "cosine"
    )


@given(
    tokens=st.integers(1, 10**12),
    per_step=st.integers(1, 10**6),
    windows=st.integers(1, 10**6),
    batch=st.integers(1, 512),
)
def test_lengths_are_rounded_up(tokens: int, per_step: int, windows: int, batch: int) -> None:
    sizes = {"step_tokens": per_step, "windows": windows, "batch": batch}
    steps = Length(tokens=float(tokens)).in_steps(**sizes)
    assert (steps - 1) * per_step < tokens <= steps * per_step
    steps = Length(epochs=3).in_steps(**sizes)
    assert (steps - 1) * batch < 3 * windows <= steps * batch
    assert Length(steps=7).in_steps(**sizes) == 7


def test_warm_up_and_decay_fit_into_the_training() -> None:
    Recipe(1, 1, {}, warmup=0.6)
    Recipe(1, 1, {}, "cosine", warmup=0.9)
    with pytest.raises(UserError, match=r"--warmup 0\.9 and --decay 0\.4 add up to more than 1"):
        Recipe(1, 1, {}, warmup=0.9)


def test_fine_tuning_keeps_the_optimizer_and_is_gentler() -> None:
    recipe = tuning(muon(0.04), 256, 640, ranks=3, length=Length(), batch=None)
    assert (recipe.batch, recipe.steps) == (66, math.ceil(TUNING_EPOCHS * 640 / 66))
    assert (recipe.schedule, recipe.decay, recipe.min_lr_ratio) == ("wsd", 0.5, 0.0)
    assert recipe.optimizer["params"]["lr"] == TUNING_LR * 0.04
    assert tuned(adamw(0.002)) == adamw(TUNING_LR * 6e-4), "as it always was"
    both = {"type": "Muon", "params": {"lr": 0.02, "adam_lr": 0.001, "momentum": 0.9}}
    assert tuned(both)["params"] == {"lr": TUNING_LR * 0.02, "adam_lr": TUNING_LR * 0.001, "momentum": 0.9}
