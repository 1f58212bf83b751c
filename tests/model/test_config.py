"""Configurations: parameters, FLOPs, memory, and cache shape, compared with the model and with torch's counts."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kogpt.model.config import ModelConfig
from kogpt.model.gpt2 import GPTConfig
from kogpt.model.qwen3 import Qwen3Config
from kogpt.model.registry import build

GPT2 = GPTConfig(vocab_size=50257, max_seq_len=1024, n_layer=12, n_head=12, n_embd=768)


def shapes(**more: Any) -> list[ModelConfig]:
    """A GPT-2, and two Qwen3 of which one has groups, heads of another size, and a head of its own."""
    grouped: dict[str, Any] = {"n_head": 4, "n_kv_head": 2, "head_dim": 48, "n_inner": 320, "tied": False}
    plain: dict[str, Any] = {"n_head": 4, "n_kv_head": 4, "head_dim": 32, "n_inner": 352}
    return [GPTConfig(n_head=4, n_embd=128, **more), *(Qwen3Config(n_embd=128, **more, **x) for x in (grouped, plain))]


@pytest.mark.parametrize("config", shapes(vocab_size=301, max_seq_len=32, n_layer=3))
def test_parameter_count_is_that_of_the_model(config):
    assert config.parameter_count == sum(p.numel() for p in build(config).parameters())
    assert GPT2.parameter_count == 124_439_808  # as OpenAI's release


@pytest.mark.parametrize("config", shapes(vocab_size=512, max_seq_len=128, n_layer=3))
def test_flops_per_token_equals_what_torch_counts(config):
    model = build(config)
    ids, targets = torch.randint(512, (2, 2, 128))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(ids, targets).backward()
    assert counter.get_total_flops() / 256 == pytest.approx(config.flops_per_token(128), rel=0.01)
    # nanoGPT's figure for GPT-2 small at 1,024, which its README's MFU is computed with
    assert GPT2.flops_per_token(1024) == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024


@pytest.mark.parametrize("precision", ["fp32", "bf16", "autocast"])
@pytest.mark.parametrize("layers", [1, 6])
@pytest.mark.parametrize("number", range(3))
def test_activations_are_what_autograd_keeps(number, precision, layers):
    config = shapes(vocab_size=400, max_seq_len=128, n_layer=layers)[number]
    model = build(config)
    if precision == "bf16":
        model = model.bfloat16()
    ids, targets = torch.randint(400, (2, 8, 128))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.is_floating_point():
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            loss = model(ids, targets)
        measured = sum(s.nbytes() for s in kept.values())
    if precision == "autocast":  # the cast copies of the weights, which grow with the model and not the batch
        measured -= 2 * sum(p.numel() for p in model.blocks.parameters() if p.dim() == 2) + 2 * 400 * 128
    assert loss.isfinite()
    expected = config.activation_bytes(precision=precision, micro_batch=8, seq_len=128)
    assert measured == pytest.approx(expected, rel=0.1)
