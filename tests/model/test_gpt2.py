"""GPT-2, compared with transformers and torch's encoder layer; its initialization and its older configurations."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogpt.common.errors import UserError
from kogpt.model.gpt2 import GPT, Block, GPTConfig
from kogpt.model.loss import IGNORED
from kogpt.model.registry import config_from_dict

SMALL = GPTConfig(vocab_size=301, max_seq_len=32, n_layer=3, n_head=4, n_embd=48)


def make(config: GPTConfig = SMALL, seed: int = 0, dtype: torch.dtype = torch.float32) -> GPT:
    torch.manual_seed(seed)
    return GPT(config).to(dtype).eval()


def randomise(module: nn.Module) -> None:
    """Weights that differ from their initial values (biases not 0, gains not 1), so that a missing one is noticed."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def reference_of(model: GPT):
    """transformers' GPT2LMHeadModel with the weights of `model`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    c = model.config
    reference = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=c.vocab_size,
            n_positions=c.max_seq_len,
            n_embd=c.n_embd,
            n_layer=c.n_layer,
            n_head=c.n_head,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
    )
    reference = reference.to(next(model.parameters()).dtype).eval()
    with torch.no_grad():
        for ours, theirs in pairs(model, reference):
            theirs.copy_(ours.T if ours.shape != theirs.shape or is_conv(ours, model) else ours)
    return reference


def is_conv(parameter: Tensor, model: GPT) -> bool:
    """Is it a matrix of a block? transformers keeps those transposed."""
    return parameter.dim() == 2 and any(parameter is p for p in model.blocks.parameters())


def pairs(model: GPT, reference) -> list[tuple[Tensor, Tensor]]:
    ours, theirs = model, reference.transformer
    found: list[tuple[Any, Any]] = [
        (ours.wte.weight, theirs.wte.weight),
        (ours.wpe.weight, theirs.wpe.weight),
        (ours.ln_f.weight, theirs.ln_f.weight),
        (ours.ln_f.bias, theirs.ln_f.bias),
    ]
    for a, b in zip(ours.blocks, theirs.h, strict=True):
        for x, y in (
            (a.ln_1, b.ln_1),
            (a.attn.qkv, b.attn.c_attn),
            (a.attn.proj, b.attn.c_proj),
            (a.ln_2, b.ln_2),
            (a.mlp.fc, b.mlp.c_fc),
            (a.mlp.proj, b.mlp.c_proj),
        ):
            found += [(x.weight, y.weight), (x.bias, y.bias)]
    assert len(found) == len(list(model.parameters()))
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_logits_and_gradients_equal_transformers(dtype, tolerance):
    model = make(dtype=dtype)
    randomise(model)
    reference = reference_of(model)
    ids = torch.randint(SMALL.vocab_size, (3, SMALL.max_seq_len))
    targets = torch.randint(SMALL.vocab_size, (3, SMALL.max_seq_len))
    targets[1, 5:9] = IGNORED

    logits = reference(ids).logits
    assert (model(ids) - logits).abs().max() < tolerance
    loss = model(ids, targets) / (targets != IGNORED).sum()
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    assert abs(loss.item() - expected.item()) < tolerance
    loss.backward()
    expected.backward()
    for ours, theirs in pairs(model, reference):
        assert ours.grad is not None
        theirs_grad = theirs.grad.T if is_conv(ours, model) else theirs.grad
        assert (ours.grad - theirs_grad).abs().max() < tolerance


def test_block_without_mask_is_torchs_pre_ln_encoder_layer():
    torch.manual_seed(1)
    block = Block(SMALL, causal=False).double()
    layer = nn.TransformerEncoderLayer(
        SMALL.n_embd,
        SMALL.n_head,
        4 * SMALL.n_embd,
        dropout=0.0,
        activation=lambda x: F.gelu(x, approximate="tanh"),
        batch_first=True,
        norm_first=True,
    ).double()
    randomise(block)
    names = {
        "self_attn.in_proj_": block.attn.qkv,
        "self_attn.out_proj.": block.attn.proj,
        "linear1.": block.mlp.fc,
        "linear2.": block.mlp.proj,
        "norm1.": block.ln_1,
        "norm2.": block.ln_2,
    }
    layer.load_state_dict({f"{n}{k}": v for n, m in names.items() for k, v in m.state_dict().items()})
    x = torch.randn(2, 17, SMALL.n_embd, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    ours, theirs = block(x), layer(y)
    assert (ours - theirs).abs().max() < 1e-12
    ours.square().sum().backward()
    theirs.square().sum().backward()
    assert (x.grad - y.grad).abs().max() < 1e-9
    assert (block.attn.qkv.weight.grad - layer.self_attn.in_proj_weight.grad).abs().max() < 1e-9
    causal = Block(SMALL, causal=True).double()
    causal.load_state_dict(block.state_dict())
    assert (causal(x) - ours).abs().max() > 1e-2, "the mask made no difference"


def test_initialisation_is_gpt2s():
    config = GPTConfig(vocab_size=3000, max_seq_len=64, n_layer=8, n_head=4, n_embd=128)
    state = make(config).state_dict()
    for name, value in state.items():
        if name.endswith("proj.weight"):
            assert value.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.05), name
        elif value.dim() == 2:
            assert value.std().item() == pytest.approx(0.02, rel=0.05), name
        else:
            assert value.eq(1.0 if name.endswith("weight") else 0.0).all(), name


def test_a_model_of_version_0_1_loses_its_bias_field_and_one_without_biases_is_refused():
    fields = {"vocab_size": 301, "max_seq_len": 32, "n_layer": 3, "n_head": 4, "n_embd": 48}
    assert config_from_dict({**fields, "bias": True}) == config_from_dict({**fields, "arch": "gpt2"}) == SMALL
    assert config_from_dict(SMALL.to_dict()) == SMALL
    with pytest.raises(UserError, match='"bias" is false'):
        config_from_dict({**fields, "bias": False})
    with pytest.raises(UserError, match='architecture is "qwen9"'):
        config_from_dict({**fields, "arch": "qwen9"})
    with pytest.raises(UserError, match="n_rotary"):
        config_from_dict({**fields, "n_rotary": 3})


def test_config_names_every_problem_at_once():
    with pytest.raises(ValueError) as caught:
        GPTConfig(vocab_size=0, n_head=5, n_embd=48, dropout=1.0)
    for word in ("vocab_size is 0", "n_embd 48 is not a multiple of n_head 5", "dropout is 1.0"):
        assert word in str(caught.value)
