"""The speed of a machine: a line through measured points, named GPUs, and a measurement."""

import os
import re
import time
from collections.abc import Callable

import pytest
import torch
from builders import Inside
from hypothesis import given
from hypothesis import strategies as st

from kogpt.common.errors import UserError
from kogpt.model import registry
from kogpt.model.config import ModelConfig
from kogpt.model.qwen3 import Qwen3Config
from kogpt.plan import machine
from kogpt.plan.machine import CUDA_BYTES, GPUS, STEP_TOKENS, Machine, line, measured, most_rows, named, token_seconds
from kogpt.train import distributed
from kogpt.train.distributed import Ranks
from kogpt.train.options import DEFAULT_FILE, ModelOptions, model_config
from kogpt.train.planner import estimate

CPU = torch.device("cpu")
PROJECT = DEFAULT_FILE.parent


def _config(depth: int, context: int = 32) -> Qwen3Config:
    return Qwen3Config(500, context, **Qwen3Config.shape_of_depth(depth))


@given(overhead=st.floats(0, 1e-3), speed=st.floats(1e9, 1e15))
def test_the_line_finds_overhead_and_speed(overhead: float, speed: float) -> None:
    points = [(flops, overhead + flops / speed) for flops in (1e7, 3e7, 2e8)]
    found = line(points)
    for flops, spent in points:
        assert found[0] + flops / found[1] == pytest.approx(spent, rel=1e-3)


@given(st.lists(st.tuples(st.floats(1e6, 1e12), st.floats(1e-9, 1e-1)), min_size=1, max_size=4))
def test_noise_gives_no_negative_times(points: list[tuple[float, float]]) -> None:
    overhead, speed = line(points)
    assert overhead >= 0
    assert speed > 0


@pytest.mark.parametrize("name", GPUS)
def test_every_named_gpu_has_a_peak_and_memory(name: str) -> None:
    one, eight = named(name, 1, 0.4), named(name, 8, 0.2)
    assert eight.seconds(1e9) == pytest.approx(one.seconds(1e9) / 4)
    assert 10**10 < one.memory < 10**12
    assert named(name.lower(), 1, 0.4) == one


def test_an_unknown_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="--gpu H1000 is unknown; give one of T4, "):
        named("H1000", 1, 0.4)


def test_a_larger_model_takes_longer() -> None:
    small, large = (token_seconds(_config(depth), 32, 0.1, CPU, "fp32", time.process_time) for depth in (1, 3))
    assert 0 < small < large


@pytest.fixture
def before_steps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Functions that are called before each forward pass of a measured model."""
    calls: list[Callable[[], None]] = []
    build = registry.build

    def built(config: ModelConfig) -> torch.nn.Module:
        model = build(config)
        model.register_forward_pre_hook(lambda *_: [call() for call in calls] and None)
        return model

    monkeypatch.setattr(registry, "build", built)
    return calls


def test_the_first_step_does_not_count(before_steps: list[Callable[[], None]]) -> None:
    """It compiles on a GPU: here it takes 100 seconds, every other one a second."""
    now = 0.0

    def work() -> None:
        nonlocal now
        now += 1 if now else 100

    before_steps.append(work)
    assert token_seconds(_config(1), 1, 0.0, CPU, "fp32", lambda: now) * 32 == 1
    assert now == 101


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", None)])
def test_steps_have_the_precision_of_the_training(
    precision: str, dtype: torch.dtype | None, before_steps: list[Callable[[], None]]
) -> None:
    seen = []

    def look() -> None:
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        raise InterruptedError

    before_steps.append(look)
    with pytest.raises(InterruptedError):
        token_seconds(_config(1), 1, 0.0, CPU, precision, time.perf_counter)  # type: ignore[arg-type]
    assert seen == [dtype]


def test_steps_have_the_attention_of_the_training(
    before_steps: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, seen = Inside(), list[bool]()
    monkeypatch.setattr(machine, "fused_attention", inside)
    before_steps.append(lambda: seen.append(inside.now))
    token_seconds(_config(1), 1, 0.0, CPU, "fp32", lambda: 0.0)
    assert seen == [True, True]


@pytest.mark.parametrize(
    ("name", "count", "precision", "stage"),
    [("T4", 1, "fp16", 2), ("V100", 8, "fp16", 2), ("H100", 1, "autocast", 0), ("H100", 8, "bf16", 2)],
)
def test_a_gpu_trains_as_the_training_decides(
    name: str, count: int, precision: str, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kogpt.common.system.has_deepspeed", lambda: False)  # here, but not where the GPUs are
    engine = named(name, count, 0.4).engine(DEFAULT_FILE, {"train_batch_size": 8})
    assert (engine.precision, engine.stage) == (precision, stage)


def test_a_long_context_has_fewer_windows_in_a_step() -> None:
    plenty = 10**12
    assert most_rows(_config(2, 256), CPU, "fp32", plenty) == STEP_TOKENS // 256
    assert most_rows(_config(2, 4096), CPU, "fp32", plenty) == STEP_TOKENS // 4096
    assert most_rows(_config(2, 10**5), CPU, "fp32", plenty) == 1
    assert 0 < most_rows(_config(2, 256), CPU, "fp32", 10**8) < STEP_TOKENS // 256
    assert most_rows(_config(2, 256), CPU, "fp32", 10**6) == 0


def _measure(monkeypatch: pytest.MonkeyPatch, memory: int) -> list[str]:
    """What a measurement asks for, in order, on a machine with so many free bytes and three cores."""
    asked: list[str] = []

    def free(_: torch.device) -> int:
        asked.append("memory")
        return memory

    def spent(config: ModelConfig, *_: object) -> float:
        asked.append(f"depth {config.n_layer}, {torch.get_num_threads()} threads")
        return 1e-6 * config.n_layer

    monkeypatch.setattr(machine, "choose_device", lambda _: CPU)
    monkeypatch.setattr(machine, "free_memory", free)
    monkeypatch.setattr(machine, "token_seconds", spent)
    monkeypatch.setattr(distributed, "usable_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    try:
        assert measured(lambda depth: _config(depth, 256), 1.0).memory == memory
        assert os.environ["OMP_NUM_THREADS"] == "3"
    finally:
        torch.set_num_threads(threads)
    return asked


def test_memory_is_read_before_steps_with_the_threads_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    depths = [f"depth {depth}, 3 threads" for depth in (2, 4, 6)]
    assert _measure(monkeypatch, 10**12) == ["memory", *depths]


def test_depths_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _measure(monkeypatch, 50 * 10**6) == ["memory", "depth 2, 3 threads"]
    with pytest.raises(UserError, match="depth 2 with windows of 256 tokens does not fit"):
        _measure(monkeypatch, 10**6)


FILES = ("ds_config.json", "launch/ds_zero2_offload.json", "ds_config.json", "ds_config.json", "launch/ds_zero3.json")


@pytest.mark.parametrize("page", ["training.md", "training.ko.md"])
def test_what_fits_is_what_the_page_says(page: str) -> None:
    """The depth of each cell fits, the next one does not, and the number of parameters is right."""
    text = (PROJECT / "docs" / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) GB \|" + r" (\d+) \((.+?)B\) \|" * 5 + "$", text, re.MULTILINE)
    assert len(rows) == 6
    settings = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "Muon"}}
    for gigabytes, *cells in rows:
        for file, count, depth, billions in zip(FILES, (1, 1, 2, 8, 8), cells[::2], cells[1::2], strict=True):
            here = Machine(count, 0.0, 1.0, int(gigabytes) * 10**9 - CUDA_BYTES, "cuda", bf16=True, deepspeed=True)
            plan, ranks = here.engine(PROJECT / file, settings), Ranks(0, count, 0, count, torch.device("cuda"))
            shapes = [model_config(ModelOptions(depth=int(depth) + more, max_seq_len=1024), 20_000) for more in (0, 1)]
            fits = [
                estimate(shape, plan, ranks, document_mask=True).to_be_free(here.device) <= here.memory
                for shape in shapes
            ]
            assert fits == [True, False], (gigabytes, file, count, depth)
            assert f"{shapes[0].parameter_count / 1e9:.2g}" == billions
