"""Guesses of a draft: the same tokens in fewer passes, whether they are right or wrong."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from builders import SHAPES, scattered, shape_of

from kogpt.generate.engine import Engine, Row, Step
from kogpt.generate.sampling import Sampling
from kogpt.model.decoder import Decoder
from kogpt.model.packed import packed

WIDTHS: dict[str, dict[str, Any]] = {"gpt2": {}, "qwen3": {"head_dim": 16, "n_inner": 64}}
"""Multiples of 32, so that rows do not depend on one another (kogpt.model.packed)."""
COUNT = 70
"""More tokens than the context has places."""
SETTINGS = {
    "greedy": Sampling(COUNT, greedy=True),
    "sampled": Sampling(COUNT, temperature=1.2, top_k=20, seed=5),
    "penalties": Sampling(COUNT, top_p=0.9, frequency_penalty=0.5, seed=5),
}


@pytest.fixture(autouse=True)
def small_models_have_a_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kogpt.model.packed.LEAST_FOR_A_DRAFT", 0)


def model_of(arch: str, seed: int = 0) -> Decoder:
    return packed(scattered(replace(shape_of(arch), **WIDTHS[arch]), seed=seed))


def with_draft(model: Decoder, draft: Decoder | None) -> Decoder:
    model.__dict__["draft"] = draft
    return model


class Passes:
    """Counts the passes of a model."""

    def __init__(self, model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.fails_at = 0, -1
        hidden = model.hidden

        def counted(*args: Any, **more: Any) -> torch.Tensor:
            self.count += 1
            made = hidden(*args, **more)
            if self.count == self.fails_at:
                raise MemoryError("no memory for this pass")
            return made

        monkeypatch.setitem(model.__dict__, "hidden", counted)


def alone(model: Decoder, sampling: Sampling) -> list[Step]:
    engine = Engine(model, 1)
    row = engine.add([2, 5, 9], sampling, logprobs=2)
    return [engine.step()[row] for _ in range(COUNT)]


@pytest.mark.parametrize("sampling", SETTINGS)
@pytest.mark.parametrize("arch", SHAPES)
def test_guesses_change_nothing_but_the_number_of_passes(
    arch: str, sampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = alone(with_draft(model_of(arch), None), SETTINGS[sampling])
    perfect = with_draft(model_of(arch), model_of(arch))
    passes = Passes(perfect, monkeypatch)
    assert alone(perfect, SETTINGS[sampling]) == wanted  # to the bit: also the log-probabilities
    assert passes.count == COUNT if sampling == "penalties" else passes.count < COUNT / 2
    assert alone(with_draft(model_of(arch), model_of(arch, seed=1)), SETTINGS[sampling]) == wanted
    assert alone(model_of(arch), SETTINGS[sampling]) == wanted


def test_known_tokens_are_given_out_while_others_come_and_go() -> None:
    model = model_of("gpt2")
    wanted = {name: alone(model, sampling) for name, sampling in SETTINGS.items()}
    engine = Engine(with_draft(model, model_of("gpt2")), 3)
    made: dict[str, list[Step]] = {name: [] for name in SETTINGS}
    rows: dict[Row, str] = {}
    for number in range(COUNT + 20):
        if number in (0, 7, 20):  # after the second passes, and in the middle of what they have found
            name = list(SETTINGS)[len(rows)]
            rows[engine.add([2, 5, 9], SETTINGS[name], logprobs=2)] = name
        for row, step in engine.step().items():
            made[rows[row]].append(step)
            if len(made[rows[row]]) == COUNT:
                engine.remove(row)
    assert made == wanted


def test_a_pass_that_fails_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    wanted = alone(model, SETTINGS["sampled"])
    for failing, when in (("draft", 2), ("model", 3)):
        whole = with_draft(model_of("gpt2"), model_of("gpt2"))
        assert whole.draft is not None
        passes = Passes(whole.draft if failing == "draft" else whole, monkeypatch)
        passes.fails_at = when
        engine = Engine(whole, 1)
        row = engine.add([2, 5, 9], SETTINGS["sampled"], logprobs=2)
        made: list[Step] = []
        errors = 0
        while len(made) < COUNT:
            try:
                made.append(engine.step()[row])
            except MemoryError:
                errors += 1
        assert (made, errors) == (wanted, 1)
