"""The chunked loss, compared with torch's cross_entropy: values, gradients, half precision, memory."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import kogpt.model.loss as loss_module
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.model.loss import IGNORED, linear_cross_entropy, linear_nll

SMALL = GPTConfig(vocab_size=301, max_seq_len=32, n_layer=3, n_head=4, n_embd=48)


@settings(max_examples=30)
@given(
    rows=st.integers(1, 40),
    chunk=st.integers(1, 45),
    pad_to=st.sampled_from([1, 8, 64]),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_chunked_loss_equals_unchunked(rows, chunk, pad_to, ignored, seed):
    torch.manual_seed(seed)
    hidden = torch.randn(rows, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(29, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(29, (rows,)).masked_fill(torch.rand(rows) < ignored, IGNORED)
    loss = linear_cross_entropy(hidden, weight, targets, chunk=chunk, pad_to=pad_to)
    (loss * 3).backward()
    ours = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    expected = F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORED, reduction="sum")
    (expected * 3).backward()
    assert abs(loss.item() - expected.item()) < 1e-10
    assert (ours[0] - hidden.grad).abs().max() < 1e-12
    assert (ours[1] - weight.grad).abs().max() < 1e-12
    each = linear_nll(hidden, weight, targets, chunk=chunk, pad_to=pad_to)
    plain = F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORED, reduction="none")
    assert (each - plain).abs().max() < 1e-12


def test_chunked_loss_is_no_less_exact_in_half_precision():
    """In float16 with a loss scale of 65,536, gradients are as close to float32 as those of torch's own loss."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(512, 64), torch.randn(1000, 64) * 0.2
    targets = torch.randint(1000, (512,))

    def gradients(loss, dtype):
        h, w = (x.detach().to(dtype, copy=True).requires_grad_() for x in (hidden, weight))
        (loss(h, w) * 65536).backward()
        return torch.cat([h.grad.float().flatten(), w.grad.float().flatten()]) / 65536

    def plain(h, w):
        return F.cross_entropy((h @ w.T).float(), targets)

    exact = gradients(plain, torch.float32)
    theirs = (gradients(plain, torch.float16) - exact).norm() / exact.norm()
    ours = gradients(lambda h, w: linear_cross_entropy(h, w, targets, chunk=100) / len(targets), torch.float16)
    assert torch.isfinite(ours).all()
    assert (ours - exact).norm() / exact.norm() < 1.5 * theirs < 0.01


class Largest(TorchDispatchMode):
    """The size of the largest tensor that any operation creates."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_logits_of_the_whole_batch_never_exist(monkeypatch):
    config = GPTConfig(vocab_size=2000, max_seq_len=64, n_layer=1, n_head=2, n_embd=16)
    model = GPT(config)
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", {"cpu": 128 * config.vocab_size})
    ids, targets = torch.randint(2000, (2, 16, 64))
    with Largest() as plain:
        F.cross_entropy(model(ids).flatten(0, 1), targets.flatten()).backward()
    with Largest() as chunked:
        model(ids, targets).backward()
    assert plain.numel == 16 * 64 * 2000
    assert chunked.numel == 128 * 2000
    with Largest() as evaluated:
        model.token_nll(ids, targets)
    assert evaluated.numel == 128 * 2000


def test_token_nll_and_loss_agree(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", {"cpu": 1})
    model = GPT(SMALL)
    ids, targets = torch.randint(SMALL.vocab_size, (2, 6, SMALL.max_seq_len))
    targets[0, :20] = IGNORED
    nll = model.token_nll(ids, targets)
    expected = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    assert nll.shape == targets.shape
    assert nll.dtype == torch.float32
    assert torch.allclose(nll.flatten(), expected, atol=1e-5)
    trained = model(ids, targets)
    with torch.no_grad():
        evaluated = model(ids, targets)
    assert trained.item() == pytest.approx(nll.sum().item(), rel=1e-6)
    assert evaluated.item() == pytest.approx(trained.item(), rel=1e-6)
