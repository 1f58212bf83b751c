"""How fast and how large a machine is. In: this machine, or the name of a GPU. Out: `Machine`.

This machine is measured: training steps of some depths, for about a minute, in the training's precision and with its
threads. The time of a token is then `overhead + FLOPs / speed`, in which `overhead` is what small models lose. A named
GPU computes at a share (MFU) of the maker's peak.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kogpt.common.device import choose_device, has_bf16, has_fp16
from kogpt.common.errors import UserError
from kogpt.common.numerics import fused_attention
from kogpt.common.system import has_deepspeed
from kogpt.data.batch import Batch
from kogpt.model import registry
from kogpt.model.config import ModelConfig, Precision
from kogpt.model.loss import CHUNK_LOGITS
from kogpt.train import deepspeed_config, deepspeed_file
from kogpt.train.compile import compile_blocks, obstacle
from kogpt.train.distributed import share_cores
from kogpt.train.gpu_peaks import peak_flops
from kogpt.train.memory import memory_per_rank
from kogpt.train.options import DEFAULT_FILE
from kogpt.train.planner import free_memory

GPUS: dict[str, tuple[str, int]] = {
    "T4": ("T4", 16),
    "V100": ("V100-SXM2-32GB", 32),
    "RTX3060": ("RTX 3060", 12),
    "RTX3090": ("RTX 3090", 24),
    "RTX4090": ("RTX 4090", 24),
    "RTX5090": ("RTX 5090", 32),
    "L4": ("L4", 24),
    "A10": ("A10", 24),
    "L40S": ("L40S", 48),
    "A100": ("A100-SXM4-80GB", 80),
    "H100": ("H100 80GB HBM3", 80),
    "H200": ("H200", 141),
    "B200": ("B200", 192),
}
"""By the name that people use: that of torch, and GB of memory."""
CUDA_BYTES = 10**9
"""What CUDA itself takes of a GPU's memory."""
DEPTHS = {"cuda": (8, 16), "cpu": (2, 4, 6)}
"""Of the models that are measured."""
STEP_TOKENS = 8192
"""Tokens in a measured step, if they fit."""


@dataclass(frozen=True)
class Machine:
    """Devices that train together: seconds of a token, and the bytes of each."""

    devices: int
    overhead: float
    """Seconds a token on one device, whatever the model."""
    speed: float
    """FLOP/s of one device."""
    memory: int
    device: str
    """"cuda", "cpu", or "mps"."""
    bf16: bool
    deepspeed: bool
    fp16: bool = True
    """Does it have bf16 hardware, DeepSpeed, and GPUs on which DeepSpeed trains in fp16?"""
    words: str = ""
    """What it is, and how the speed is known."""

    def seconds(self, flops: float) -> float:
        """Of a token, on all devices."""
        return (self.overhead + flops / self.speed) / self.devices

    def engine(self, file: Path, settings: dict[str, Any]) -> deepspeed_config.EnginePlan:
        """The settings of a training here, with this DeepSpeed file and "train_batch_size" besides."""
        return deepspeed_config.plan(
            file,
            deepspeed_file.read(file) | settings,
            world_size=self.devices,
            device=self.device,
            has_bf16=self.bf16,
            has_fp16=self.fp16,
            deepspeed=self.deepspeed,
        )


def named(name: str, count: int, mfu: float) -> Machine:
    """So many GPUs of this name. Raises `UserError` for one that is unknown."""
    known = {one.upper(): one for one in GPUS}.get(name.upper().replace(" ", ""))
    if known is None:
        raise UserError(f"--gpu {name} is unknown; give one of {', '.join(GPUS)}.")
    full_name, gigabytes = GPUS[known]
    half = peak_flops(full_name, "bf16")
    peak = half or peak_flops(full_name, "fp16")
    assert peak is not None, "tested"
    words = f"{count} x {known}: {peak / 1e12:g} TFLOP/s each, of which training gets {mfu:.0%}"
    return Machine(
        devices=count,
        overhead=0.0,
        speed=peak * mfu,
        memory=gigabytes * 10**9 - CUDA_BYTES,
        device="cuda",
        bf16=half is not None,
        deepspeed=True,
        words=words,
    )


def measured(
    config: Callable[[int], ModelConfig], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Machine:
    """This machine, by training steps of random tokens. `config` is a function from a depth to a model.

    `clock` may be another one, such as `time.process_time` where other programs use the machine. Depths that do not fit
    the memory are left out. Raises `UserError` if none fits.
    """
    device = choose_device(None)
    depths = DEPTHS["cuda" if device.type == "cuda" else "cpu"]
    devices = max(1, torch.cuda.device_count()) if has_deepspeed() else 1
    share_cores(devices)
    memory = free_memory(device)  # before torch keeps blocks of what was measured
    machine = Machine(devices, 0.0, 1.0, memory, device.type, has_bf16(device), has_deepspeed(), has_fp16(device))
    precision = machine.engine(DEFAULT_FILE, {"train_batch_size": devices}).precision
    points = []
    for shape in map(config, depths):
        if rows := most_rows(shape, device, precision, memory):
            spent = token_seconds(shape, rows, seconds / len(depths), device, precision, clock)
            points.append((shape.flops_per_token(shape.max_seq_len), spent))
    if not points:
        raise UserError(
            f"a model of depth {depths[0]} with windows of {config(depths[0]).max_seq_len} tokens does not fit the "
            f"{memory / 2**30:.1f} GiB that are free; free some, or give a smaller --max-seq-len."
        )
    overhead, speed = line(points)
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    what += " of this CPU" if device.type == "cpu" else ""
    words = f"{f'{devices} x ' if devices > 1 else ''}{what}: {speed / 1e12:.3g} TFLOP/s, measured"
    return replace(machine, overhead=overhead, speed=speed, words=words)


def most_rows(config: ModelConfig, device: torch.device, precision: Precision, memory: int) -> int:
    """Windows of a measured step: those of `STEP_TOKENS`, halved until they fit so many bytes; 0 if none does."""
    rows = max(1, STEP_TOKENS // config.max_seq_len)
    while rows:
        need = memory_per_rank(
            config,
            stage=0,
            world_size=1,
            precision="fp32" if precision == "fp32" else "autocast",
            micro_batch=rows,
            seq_len=config.max_seq_len,
            document_mask=True,
            chunk_logits=CHUNK_LOGITS["cpu" if device.type == "cpu" else "gpu"],
        )
        if need.to_be_free(device.type) <= memory:
            break
        rows //= 2
    return rows


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(overhead, speed) of points (FLOPs, seconds), with the least relative error and no negative overhead."""
    weights = [1 / spent**2 for _, spent in points]
    total = sum(weights)
    x = sum(w * flops for w, (flops, _) in zip(weights, points, strict=True)) / total
    y = sum(w * spent for w, (_, spent) in zip(weights, points, strict=True)) / total
    across = sum(w * (flops - x) ** 2 for w, (flops, _) in zip(weights, points, strict=True))
    slope = sum(w * (flops - x) * (spent - y) for w, (flops, spent) in zip(weights, points, strict=True))
    slope = slope / across if across else y / x
    overhead = y - slope * x
    if overhead <= 0 or slope <= 0:  # noise
        return 0.0, x / y
    return overhead, 1 / slope


def token_seconds(
    config: ModelConfig,
    rows: int,
    seconds: float,
    device: torch.device,
    precision: Precision,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds a token in forward, backward, and AdamW's update, in the fastest of the steps that fit into `seconds`.

    A step has `rows` windows. The first one does not count: a GPU compiles in it.
    """
    torch.manual_seed(0)
    model = registry.build(config).to(device).train()
    if device.type == "cuda" and obstacle(0, device.type) is None:
        compile_blocks(model)  # as a training does
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(config.vocab_size, (rows, config.max_seq_len + 1), device=device)
    articles = torch.arange(2 * rows + 1, dtype=torch.int32, device=device) * config.max_seq_len // 2
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), documents=articles)
    half = torch.float16 if precision == "fp16" else torch.bfloat16

    def step() -> float:
        started = clock()
        with fused_attention(device):
            with torch.autocast(device.type, half, enabled=precision != "fp32"):
                loss = model(*batch)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())  # waits for the device
        return clock() - started

    step()
    end, best = clock() + seconds, step()
    while clock() + best < end:
        best = min(best, step())
    return best / batch.ids.numel()
