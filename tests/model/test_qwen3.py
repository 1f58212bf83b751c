"""Qwen3, compared with transformers; its normalization with torch's; its initialization and its shapes."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from builders import scattered, shape_of
from torch import nn

from kogpt.hub.qwen3 import Qwen3Adapter
from kogpt.model.layers import RMSNorm
from kogpt.model.loss import IGNORED
from kogpt.model.qwen3 import Qwen3Config
from kogpt.model.registry import build


def reference_of(model):
    """transformers' Qwen3ForCausalLM with the weights of `model`, through the adapter that export uses."""
    from transformers import Qwen3Config as TheirConfig
    from transformers import Qwen3ForCausalLM

    adapter = Qwen3Adapter()
    theirs = Qwen3ForCausalLM(TheirConfig.from_dict(json.loads(json.dumps(adapter.export_config(model.config, {})))))
    missing = theirs.load_state_dict(adapter.export_weights(model.state_dict(), model.config), strict=False)
    assert missing.missing_keys == (["lm_head.weight"] if model.config.tied else [])
    assert not missing.unexpected_keys
    theirs.tie_weights()
    return theirs.eval()


def norms_in_full_precision(theirs: nn.Module) -> None:
    """Let their norms compute in the precision of the model: they round to float32 even in float64."""
    norm: Any
    for parent in list(theirs.modules()):
        for name, norm in parent.named_children():
            if type(norm).__name__ == "Qwen3RMSNorm":
                exact = nn.RMSNorm(norm.weight.shape, norm.variance_epsilon, dtype=norm.weight.dtype)
                exact.weight = norm.weight
                setattr(parent, name, exact)


@pytest.mark.parametrize(("tied", "heads"), [(True, 2), (False, 1), (False, 4)])
def test_logits_and_gradients_equal_transformers(tied, heads):
    model = scattered(shape_of("qwen3", tied=tied, n_kv_head=heads, rope_theta=1e6))
    theirs = reference_of(model)
    ids, targets = torch.randint(301, (2, 3, 32))
    targets[1, 5:9] = IGNORED
    assert (model(ids) - theirs(ids).logits).abs().max() < 1e-5, "float32, their class unchanged"

    model, theirs = model.double(), theirs.double()
    norms_in_full_precision(theirs)
    logits = theirs(ids).logits
    assert (model(ids) - logits).abs().max() < 1e-9
    loss = model(ids, targets) / (targets != IGNORED).sum()
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    assert abs(loss.item() - expected.item()) < 1e-9
    loss.backward()
    expected.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert len(gradients) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        theirs_name = name if name.startswith("lm_head") else f"model.{name.replace('blocks', 'layers')}"
        assert (parameter.grad - gradients[theirs_name]).abs().max() < 1e-9, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_norm_is_torchs(dtype):
    torch.manual_seed(0)
    norm = RMSNorm(24).to(dtype)
    nn.init.normal_(norm.weight)
    x = torch.randn(5, 3, 24, dtype=dtype) * 7
    found = []
    for function in (norm, lambda x: F.rms_norm(x, (24,), norm.weight, 1e-6)):
        x, norm.weight.grad = x.detach().requires_grad_(), None
        y = function(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)).sum().backward()
        found.append((y, x.grad, norm.weight.grad))
    limit = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        assert ((ours - theirs).abs() / theirs.abs().clamp(min=1)).max() < limit


@pytest.mark.parametrize("tied", [True, False])
def test_initialisation(tied):
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=2000, **Qwen3Config.shape_of_depth(6), tied=tied)
    for name, value in build(config).state_dict().items():
        if value.dim() == 1:
            assert value.eq(1).all(), name
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            assert value.eq(0).all(), name
        elif name.startswith("blocks"):
            assert value.std().item() == pytest.approx(384**-0.5, rel=0.05), name
        else:
            assert value.std().item() == pytest.approx(5 / 384 if tied else 0.02, rel=0.05), name


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 8, 12, 24])
def test_a_depth_has_about_the_parameters_of_a_gpt2(depth):
    """Even ones within 3 %; odd ones have half a head too much, and the smallest are all rounding."""
    shape = Qwen3Config.shape_of_depth(depth)
    config = Qwen3Config(vocab_size=1, **shape)
    block = config.parameter_count / depth / (12 * (64 * depth) ** 2)
    assert 0.95 < block < (1.03 if depth % 2 == 0 and depth > 2 else 1.6), block
    assert config.n_inner % 64 == 0


def test_config_names_every_problem_at_once():
    with pytest.raises(ValueError, match="Qwen3Config") as caught:
        Qwen3Config(n_head=4, n_kv_head=3, head_dim=5, n_inner=0, rope_theta=float("nan"))
    for word in ("n_head 4 is not a multiple of n_kv_head 3", "head_dim 5 is odd", "n_inner is 0", "rope_theta is nan"):
        assert word in str(caught.value)
