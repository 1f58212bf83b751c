"""Fitting a plan to the free memory: the largest micro-batch that fits, or advice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import train_here
from trainings import deepspeed_file, flags, records

from kogpt.common.errors import UserError
from kogpt.common.host_memory import HostMemory
from kogpt.model.gpt2 import GPTConfig
from kogpt.model.qwen3 import Qwen3Config
from kogpt.train import planner
from kogpt.train.deepspeed_config import plan, with_micro_batch
from kogpt.train.distributed import Ranks
from kogpt.train.options import DEFAULT_FILE
from kogpt.train.planner import estimate, fit_memory
from kogpt.train.recipe import best_step, dial
from kogpt.train.run_folder import hold

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))
PLAN = plan(
    Path("ds.json"),
    {"train_batch_size": 96, "train_micro_batch_size_per_gpu": 64, "bf16": {"enabled": True}},
    world_size=1,
    device="cpu",
    has_bf16=True,
)
SMALL = GPTConfig(vocab_size=20000, max_seq_len=1024, n_layer=12, n_head=12, n_embd=768)


@pytest.fixture(autouse=True)
def _one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 1)


def _with_free(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(planner, "host_memory", lambda: HostMemory(int(free), int(free)))


def _need(micro_batch: int, forgetful: bool = False) -> float:
    return estimate(SMALL, replace(PLAN, micro_batch=micro_batch), ALONE, forgetful).to_be_free("cpu") + 1


def test_what_fits_is_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PLAN.micro_batch == 48
    _with_free(monkeypatch, _need(48))
    fitted, need = fit_memory(SMALL, PLAN, ALONE, tmp_path)
    assert fitted is PLAN
    assert need == estimate(SMALL, PLAN, ALONE)
    assert not list(tmp_path.iterdir())


def test_the_largest_that_fits_is_taken_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_free(monkeypatch, _need(20))
    fitted, _ = fit_memory(SMALL, PLAN, ALONE, tmp_path)
    assert (fitted.micro_batch, fitted.grad_accum, fitted.global_batch) == (16, 6, 96)
    assert fitted.engine["train_micro_batch_size_per_gpu"] == 16
    assert fitted.engine["gradient_accumulation_steps"] == 6
    _with_free(monkeypatch, _need(96))
    assert fit_memory(SMALL, PLAN, ALONE, tmp_path)[0].micro_batch == 16, "a resumed run rounds as it did"
    assert fit_memory(replace(SMALL, n_layer=11), PLAN, ALONE, tmp_path)[0].micro_batch == 48, "another shape"
    _with_free(monkeypatch, _need(9))
    assert fit_memory(SMALL, PLAN, ALONE, tmp_path)[0].micro_batch == 8


def test_advice_names_what_would_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_free(monkeypatch, _need(1, forgetful=True))
    with pytest.raises(UserError, match=r"but only .* are free; --checkpoint-activations would fit") as caught:
        fit_memory(SMALL, PLAN, ALONE, tmp_path)
    assert "optimizer 0." in str(caught.value)
    with pytest.raises(UserError, match="choose a smaller --preset"):  # the mask of the documents is counted, too
        fit_memory(SMALL, PLAN, ALONE, tmp_path, document_mask=True)
    eight = replace(ALONE, world_size=8)
    monkeypatch.setattr("kogpt.train.planner.reduce_max", lambda _, value: [value])
    shared = replace(PLAN, micro_batch=1, grad_accum=12, stage=2, precision="bf16")
    _with_free(monkeypatch, estimate(SMALL, shared, eight, True).to_be_free("cpu") + 1)
    with pytest.raises(UserError, match=r'"zero_optimization.stage" 2 in ds.json with --checkpoint-activations'):
        fit_memory(SMALL, PLAN, eight, tmp_path)


@pytest.mark.parametrize("context", [256, 1024, 2048])
def test_every_context_of_the_documentation(context: int, corpus: Path, ranks: Any, tmp_path: Path) -> None:
    """The dial keeps the tokens of a step, the largest micro-batch that 12 GB hold is found, and a training runs."""
    config = Qwen3Config(20000, context, **Qwen3Config.shape_of_depth(12))
    recipe = dial(config.parameter_count, context, 2**33 // context)
    assert recipe.batch * context == best_step(20 * config.parameter_count)
    content = {"train_batch_size": recipe.batch, "optimizer": recipe.optimizer, "bf16": {"enabled": True}}
    content["train_micro_batch_size_per_gpu"] = recipe.batch
    wished = plan(Path("ds.json"), content, world_size=1, device="cpu", has_bf16=True)
    fitted, need = planner.largest(config, wished, ALONE, 12 << 30)
    twice = estimate(config, with_micro_batch(fitted, 2 * fitted.micro_batch, 1), ALONE)
    assert need.to_be_free("cpu") <= 12 << 30 < twice.to_be_free("cpu")
    assert fitted.global_batch == recipe.batch
    shape = ("--arch", "qwen3", "--max-seq-len", str(context), "--stride", str(context))
    train_here(flags(corpus, tmp_path / "run", DEFAULT_FILE, 1, *shape), ranks)
    assert records(tmp_path / "run")[0]["tokens"] == context


def test_a_smaller_model_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_free(monkeypatch, 10**6)
    with pytest.raises(UserError, match="choose a smaller --preset, --depth, or --max-seq-len, or more ranks"):
        fit_memory(SMALL, PLAN, ALONE, tmp_path)


def test_a_second_start_keeps_no_micro_batch_beside_the_first(
    corpus: Path, ranks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one has filled the memory. What fits beside it is no limit for the run."""
    run, config = tmp_path / "run", deepspeed_file(tmp_path / "ds.json", 0)
    lock = hold(run)
    _with_free(monkeypatch, 10**6)
    with pytest.raises(UserError, match="in use by another training"):
        train_here(flags(corpus, run, config, 1), ranks)
    assert [path.name for path in run.iterdir()] == [".lock"]
    lock.release()
