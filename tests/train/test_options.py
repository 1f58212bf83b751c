"""Flags: all problems at once, presets with GPT-2's sizes, and lengths in three units."""

import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kogpt.common.errors import UserError
from kogpt.model.gpt2 import GPTConfig
from kogpt.model.qwen3 import Qwen3Config
from kogpt.train.options import (
    PRESETS,
    ModelOptions,
    RunOptions,
    ScheduleOptions,
    TrainOptions,
    model_config,
    parse,
    stride,
    together,
)


def test_help_has_no_line_break_within_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "It also sets everything that is not given" in capsys.readouterr().out


@pytest.mark.parametrize(("preset", "millions"), [("small", 124), ("medium", 355), ("large", 774), ("xl", 1558)])
def test_presets_have_the_published_sizes(preset: str, millions: int) -> None:
    config = model_config(ModelOptions(preset=preset, max_seq_len=1024), 50257)  # type: ignore[arg-type]
    assert round(config.parameter_count / 1e6) == millions


def test_depth_12_is_small() -> None:
    assert GPTConfig.shape_of_depth(12) == PRESETS["small"]


def test_the_architecture_is_the_flag_s_or_the_preset_s_or_the_run_s() -> None:
    run = Qwen3Config(40, 64, **Qwen3Config.shape_of_depth(6), tied=False).to_dict()

    def arch(begun: Any = None, **flags: Any) -> str:
        return model_config(ModelOptions(**flags), 40, begun).arch

    old = GPTConfig(40, 64, **PRESETS["small"]).to_dict()
    assert [arch(), arch(depth=3), arch(arch="gpt2"), arch(preset="small")] == ["qwen3"] * 2 + ["gpt2"] * 2
    assert [arch(run), arch(run, depth=3), arch(run, preset="small"), arch(old)] == ["qwen3", "qwen3", "gpt2", "gpt2"]
    assert model_config(ModelOptions(), 40, run).to_dict() == run
    tiny = GPTConfig(40, 256, **PRESETS["tiny"])
    assert model_config(ModelOptions(arch="gpt2"), 40, run) == model_config(ModelOptions(arch="gpt2"), 40) == tiny
    small = Qwen3Config(40, 256, **Qwen3Config.shape_of_depth(4))
    assert model_config(ModelOptions(), 40) == model_config(ModelOptions(arch="qwen3"), 40) == small
    grouped = ModelOptions(arch="qwen3", depth=4, kv_heads=1, untied_head=True, max_seq_len=64)
    assert model_config(grouped, 40) == replace(small, n_kv_head=1, tied=False, max_seq_len=64)
    with pytest.raises(UserError, match="n_head 2 is not a multiple of n_kv_head 3"):
        model_config(replace(grouped, kv_heads=3), 40)
    with pytest.raises(UserError, match="--kv-heads is not a setting of gpt2"):
        model_config(ModelOptions(arch="gpt2", kv_heads=1), 40)
    with pytest.raises(UserError, match="--preset small is a shape of gpt2; give --depth"):
        TrainOptions(ModelOptions(arch="qwen3", preset="small"))
    assert TrainOptions(ModelOptions(arch="qwen3", depth=3)).out.name == "qwen3-depth-3"
    assert TrainOptions(ModelOptions(arch="qwen3")).out.name == "qwen3"
    names = [TrainOptions(ModelOptions(**flags)).out.name for flags in ({}, {"depth": 3}, {"preset": "tiny"})]
    assert names == ["depth-4", "depth-3", "tiny"]


def test_all_problems_at_once() -> None:
    with pytest.raises(UserError) as caught:
        TrainOptions(
            ModelOptions(preset="small", depth=3, dropout=1.0),
            ScheduleOptions(steps=5, tokens=1e6, warmup=2.0),
            RunOptions(keep=0, deepspeed_config=Path("/nonexistent.json")),
        )
    for part in (
        "--preset small and --depth 3",
        "--dropout is 1.0",
        "--steps 5 and --tokens 1000000.0",
        "--warmup is 2.0",
        "--keep is 0",
        "/nonexistent.json does not exist",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tokens", "nan"], "--tokens is nan; give a number"),
        (["--epochs", "inf"], "--epochs is inf; give at most 1,0"),
        (["--seed", "12345678901234567890"], "--seed is 12345678901234567890; give at most 9,2"),
        (["--out", f"{__file__}/run"], "test_options.py is a file"),
        (["--warmup", "nan"], "--warmup is nan"),
        (["--dropout", "nan"], "--dropout is nan"),
    ],
)
def test_numbers_that_are_none(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(words)
    assert said in str(caught.value)


def test_the_stride_follows_a_short_context() -> None:
    assert stride(RunOptions(), 64) == 64
    assert stride(RunOptions(), 1024) == 128
    assert stride(RunOptions(stride=32), 64) == 32
    with pytest.raises(UserError, match="--stride 65 is larger than --max-seq-len 64"):
        stride(RunOptions(stride=65), 64)


def test_every_option_has_a_help_text() -> None:
    for options in (ModelOptions, ScheduleOptions, RunOptions):
        source = Path(inspect.getfile(options)).read_text()
        body = re.search(rf"class {options.__name__}:\n(.*?)\n\n\n", source, re.S)
        assert body is not None
        for name in options.__dataclass_fields__:
            assert re.search(rf'    {name}: [^\n]*\n    """', body[1]), f"{options.__name__}.{name}"


def test_together_collects() -> None:
    def fail(text: str) -> None:
        raise UserError(text)

    assert together(lambda: 1, lambda: 2) == [1, 2]
    with pytest.raises(UserError, match="one\ntwo"):
        together(lambda: fail("one"), lambda: 3, lambda: fail("two"))
