"""Attention within documents: by a mask and, with a kernel for documents of different lengths, without one.

Torch has this kernel on GPUs alone, so the tests give CPUs one: a plain loop over the documents.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from builders import SHAPES, scattered, shape_of
from torch import Tensor

from kogpt.model import attention
from kogpt.model.attention import attend, document_mask, takes_borders

CPU = torch.device("cpu")
BORDERS = torch.tensor([0, 5, 16, 17, 32], dtype=torch.int32)
"""Of two rows of 16 tokens."""


Change = Callable[[Tensor], Tensor]


def by_document(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, grad: Tensor | None = None) -> list[Tensor]:
    """Causal attention of packed [T, head, D], one document after the other: [output], or with that of the output the
    gradients of query, key, and value."""
    scale = query.size(-1) ** -0.5
    found = []
    for start, end in zip(borders.tolist(), borders.tolist()[1:], strict=False):
        q, k, v = (part[start:end].transpose(0, 1).float() for part in (query, key, value))
        later = torch.ones(end - start, end - start, dtype=torch.bool).triu(1)
        share = (q @ k.mT * scale).masked_fill(later, -math.inf).softmax(-1)
        parts = [share @ v]
        if grad is not None:
            g = grad[start:end].transpose(0, 1).float()
            inner = g @ v.mT
            score = share * (inner - (inner * share).sum(-1, keepdim=True)) * scale
            parts = [score @ k, score.mT @ q, share.mT @ g]
        found.append([part.transpose(0, 1).to(query.dtype) for part in parts])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


@pytest.fixture
def kernel() -> Iterator[Callable[..., list[str]]]:
    """Give CPUs the kernel until the end of the test, perhaps a wrong one. Returns a list of its passes."""
    library = torch.library.Library("aten", "IMPL")
    passes: list[str] = []

    def give(change: Change = lambda borders: borders, *, backward: bool = True) -> list[str]:
        def run_forward(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, *_: Any, **more: Any) -> Any:
            passes.append("forward")
            assert (more["window_size_left"], more["window_size_right"]) == (-1, 0), "causal"
            if query.dtype == torch.float32:
                raise RuntimeError("FlashAttention only supports fp16 and bf16")
            none = query.new_empty(0)
            return by_document(query, key, value, change(borders))[0], none.float(), none, none, none

        def run_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **_: Any) -> Any:
            passes.append("backward")
            if not backward:
                raise RuntimeError("no kernel image is available for execution on the device")
            return tuple(by_document(query, key, value, change(rest[2]), grad))

        library.impl("_flash_attention_forward", run_forward, "CPU")
        library.impl("_flash_attention_backward", run_backward, "CPU")
        takes_borders.cache_clear()
        return passes

    yield give
    library._destroy()
    takes_borders.cache_clear()


def test_the_mask_lets_a_token_see_the_earlier_ones_of_its_document() -> None:
    mask = document_mask(BORDERS, torch.zeros(2, 16, 8), 8)
    number = torch.bucketize(torch.arange(32), BORDERS[1:-1].long(), right=True).view(2, 16)
    for row in range(2):
        for i in range(16):
            seen = [j for j in range(16) if j <= i and number[row, j] == number[row, i]]
            assert (mask[row, 0, i] == 0).nonzero().flatten().tolist() == seen
    assert not takes_borders(CPU, torch.bfloat16, 64), "torch has the kernel on CPUs now: use it"


@pytest.mark.parametrize("arch", SHAPES)
def test_without_a_mask_losses_and_gradients_are_the_same(arch: str, kernel: Callable[..., list[str]]) -> None:
    model = scattered(shape_of(arch))
    ids = torch.randint(300, (2, 16))
    found = []
    for given in (False, True):
        if given:
            kernel()
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(ids, ids, documents=BORDERS)
        loss.backward()
        found.append((loss.detach(), [parameter.grad for parameter in model.parameters()]))
        with torch.autocast("cpu", torch.bfloat16):
            mask = document_mask(BORDERS, torch.zeros(2, 16, 8), 64)
        assert (mask is BORDERS) == given
    assert found[1][0].item() == pytest.approx(found[0][0].item(), rel=1e-3)
    for masked, borders in zip(found[0][1], found[1][1], strict=True):
        assert (masked - borders).abs().max() <= 0.03 * masked.abs().max()


def test_fp32_and_dropout_keep_the_mask(kernel: Callable[..., list[str]]) -> None:
    kernel()
    embedded = torch.zeros(2, 16, 8)
    assert document_mask(BORDERS, embedded.bfloat16(), 64) is BORDERS
    assert document_mask(BORDERS, embedded.bfloat16(), 64, dropout=0.1).shape == (2, 1, 16, 16)
    assert document_mask(BORDERS, embedded, 64).shape == (2, 1, 16, 16)


@pytest.mark.parametrize("wrong", [{"change": lambda borders: borders[[0, -1]]}, {"backward": False}])
def test_a_wrong_kernel_is_not_used(wrong: dict[str, Any], kernel: Callable[..., list[str]]) -> None:
    """One that looks beyond a document, or one without a backward pass."""
    passes = kernel(**wrong)
    assert not takes_borders(CPU, torch.bfloat16, 64)
    assert passes == ["forward", "backward"]


def test_the_kernel_is_tried_once_also_while_nothing_is_learnt_and_draws_no_random_numbers(
    kernel: Callable[..., list[str]],
) -> None:
    passes = kernel()
    before = torch.random.get_rng_state()
    with torch.inference_mode():
        assert takes_borders(CPU, torch.bfloat16, 64)
    assert takes_borders(CPU, torch.bfloat16, 64)
    assert passes == ["forward", "backward"]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_number_of_documents_is_no_reason_to_compile_again(
    kernel: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(attend, backend="eager")
    embedded = torch.zeros(2, 16, 8, dtype=torch.bfloat16)
    query, key, value = torch.randn(3, 2, 2, 16, 64, dtype=torch.bfloat16)
    for borders in (BORDERS, BORDERS[[0, 2, 4]], BORDERS[[0, 1, 2, 4]]):
        mask = document_mask(borders.clone(), embedded, 64)
        assert torch.equal(compiled(query, key, value, mask), attend(query, key, value, mask))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("masked", [False, True])
def test_odd_sizes_of_heads_are_padded_where_the_kernel_needs_it(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported models have them. A GPU's memory-efficient kernel takes multiples of 8 only."""
    torch.manual_seed(0)
    numbers = torch.randn(3, 2, 3, 16, 12)
    mask = torch.zeros(2, 1, 16, 16).masked_fill(torch.ones(16, 16).triu(1) > 0, -math.inf) if masked else None
    whole, sizes, found = F.scaled_dot_product_attention, [], []

    def seen(query: Tensor, *rest: Any, **more: Any) -> Tensor:
        sizes.append(query.size(-1))
        return whole(query, *rest, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", seen)
    for devices in (set(), {"cpu"}):
        monkeypatch.setattr(attention, "IN_EIGHTS", devices)
        query, key, value = (part.clone().requires_grad_() for part in numbers)
        out = attend(query, key, value, mask)
        found.append([out, *torch.autograd.grad(out.square().sum(), (query, key, value))])
    assert sizes == [12, 16]
    for plain, padded in zip(*found, strict=True):
        torch.testing.assert_close(padded, plain)
