"""Newton-Schulz: singular values near 1, the same by both methods; and which parameters Muon updates."""

import pytest
import torch

from kogpt.model.decoder import Decoder
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.model.qwen3 import Qwen3, Qwen3Config
from kogpt.optim.muon import NewtonSchulz, cost, orthogonalize
from kogpt.optim.parameter_groups import hidden_matrices, muon_groups

METHODS: tuple[NewtonSchulz, ...] = ("standard", "gram")


def _gradients(rows: int, columns: int) -> torch.Tensor:
    """Two matrices with singular values from 1e-3 to 1e3, as gradients have them."""
    made = torch.Generator().manual_seed(rows)
    rank = min(rows, columns)
    left = torch.linalg.qr(torch.randn(2, rows, rank, generator=made))[0]
    right = torch.linalg.qr(torch.randn(2, columns, rank, generator=made))[0]
    return left * torch.logspace(-3, 3, rank) @ right.mT


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(48, 48), (96, 24), (24, 96), (1, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_become_about_1(shape: tuple[int, int], dtype: torch.dtype, method: NewtonSchulz) -> None:
    """Those that are not much smaller than the largest; none exceeds 1.3; directions are kept."""
    gradients = _gradients(*shape)
    found = orthogonalize(gradients.to(dtype), method)
    assert found.dtype == dtype
    left, _, right = torch.linalg.svd(gradients, full_matrices=False)
    along = (left.mT @ found.float() @ right.mT).diagonal(dim1=-2, dim2=-1)
    large = torch.logspace(-3, 3, along.size(-1)).flip(0) > 10
    assert (along[:, large] > 0.6).all()
    assert torch.linalg.matrix_norm(found.float(), 2).max() < 1.3


@pytest.mark.parametrize("shape", [(48, 48), (96, 24), (24, 96)])
def test_both_methods_are_the_same_polynomial(shape: tuple[int, int]) -> None:
    gradients = _gradients(*shape).double()
    assert torch.allclose(orthogonalize(gradients, "gram"), orthogonalize(gradients), atol=1e-9)
    assert orthogonalize(torch.zeros(1, *shape)).abs().max() == 0


@pytest.mark.parametrize(
    ("model", "hidden"),
    [
        (GPT(GPTConfig(vocab_size=61, max_seq_len=16, n_layer=2, n_head=2, n_embd=16)), 8),
        (Qwen3(Qwen3Config(vocab_size=61, max_seq_len=16, **Qwen3Config.shape_of_depth(2), tied=False)), 14),
    ],
)
def test_muon_updates_the_matrices_of_the_blocks_only(model: Decoder, hidden: int) -> None:
    matrices, rest = muon_groups(model, 0.1)
    assert [len(matrices["params"]), matrices["weight_decay"], rest["weight_decay"]] == [hidden, 0.1, 0.0]
    assert len(rest["params"]) + hidden == len(list(model.parameters()))
    assert not set(hidden_matrices(model)) & set(model.VOCABULARY)
    assert all(parameter.dim() == 2 for parameter in matrices["params"])


def test_the_update_costs_little_at_gpt2s_size() -> None:
    """124M parameters: 1.6 TFLOP, 3 % of a step of 2^16 tokens (56)."""
    wide = 768
    flops = 12 * (4 * cost(wide, wide) + 2 * cost(4 * wide, wide))
    config = GPTConfig(vocab_size=50257, max_seq_len=1024)
    assert flops == pytest.approx(1.63e12, rel=0.01)
    assert flops == pytest.approx(0.03 * config.flops_per_token(1024) * 2**16, rel=0.05)
