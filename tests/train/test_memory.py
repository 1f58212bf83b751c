"""FLOPs and memory against what torch counts, peaks against published figures."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.train.memory import (
    activation_bytes,
    flops_per_token,
    memory_per_rank,
    parameter_count,
    peak_flops,
)

GPT2 = GPTConfig(vocab_size=50257, max_seq_len=1024, n_layer=12, n_head=12, n_embd=768)


@pytest.mark.parametrize("bias", [True, False])
def test_parameter_count_is_that_of_the_model(bias):
    config = GPTConfig(vocab_size=301, max_seq_len=32, n_layer=3, n_head=4, n_embd=48, bias=bias)
    assert parameter_count(config) == sum(p.numel() for p in GPT(config).parameters())
    assert parameter_count(GPT2) == 124_439_808  # as OpenAI's release


def test_flops_per_token_equals_what_torch_counts():
    config = GPTConfig(vocab_size=512, max_seq_len=128, n_layer=3, n_head=4, n_embd=128)
    model = GPT(config)
    ids, targets = torch.randint(512, (2, 2, 128))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(ids, targets).backward()
    assert counter.get_total_flops() / 256 == pytest.approx(flops_per_token(config, 128), rel=0.01)
    # nanoGPT's figure for GPT-2 small at 1,024, which its README's MFU is computed with
    assert flops_per_token(GPT2, 1024) == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024


@pytest.mark.parametrize(
    ("name", "dtype", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "fp16", 989),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "fp32", 19.5),
        ("Tesla T4", "fp16", 65),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA L40", "bf16", 181),
    ],
)
def test_peaks_of_known_gpus(name, dtype, teraflops):
    assert peak_flops(name, dtype) == teraflops * 1e12


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("Tesla T4", "bf16"),  # no such unit
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),  # other chips under the same number
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16"),
        ("NVIDIA A10G", "bf16"),
        ("NVIDIA H20", "bf16"),
        ("cpu", "fp32"),
        ("", "bf16"),
    ],
)
def test_unknown_stays_unknown(name, dtype):
    assert peak_flops(name, dtype) is None


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_bytes_per_parameter_by_stage(ranks):
    """The formulas of the ZeRO paper, for mixed precision: 16, 4 + 12/N, 2 + 14/N, 16/N."""

    def each(stage, precision, **more):
        memory = memory_per_rank(
            GPT2,
            stage=stage,
            world_size=ranks,
            precision=precision,
            micro_batch=1,
            seq_len=8,
            **more,
        )
        return (memory.total - memory.activations) / parameter_count(GPT2)

    n = ranks
    half = [16, 4 + 12 / n, 2 + 14 / n, 16 / n]
    full = [16, 8 + 8 / n, 4 + 12 / n, 16 / n]
    for stage in range(4):
        assert each(stage, "bf16") == pytest.approx(half[stage], rel=1e-6)
        assert each(stage, "fp32") == pytest.approx(full[stage], rel=1e-6)
        assert each(stage, "bf16", offload_optimizer=True) == pytest.approx(
            half[stage] - 12 / (n if stage else 1), rel=1e-6
        )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "autocast"])
@pytest.mark.parametrize("layers", [1, 6])
def test_activations_are_what_autograd_keeps(precision, layers):
    config = GPTConfig(vocab_size=400, max_seq_len=128, n_layer=layers, n_head=4, n_embd=128)
    model = GPT(config)
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
        measured -= 2 * sum(p.numel() for p in model.parameters() if p.dim() == 2) - 2 * 128 * 128
    assert loss.isfinite()
    expected = activation_bytes(config, precision=precision, micro_batch=8, seq_len=128)
    assert measured == pytest.approx(expected, rel=0.1)
