"""Import of Qwen3 checkpoints as transformers saves them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kogpt.common.errors import UserError
from kogpt.hub.weights import import_model
from kogpt.model.qwen3 import Qwen3Config
from kogpt.model.registry import build

SIZES: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
}


def save(folder: Path, *, half: bool = False, shards: bool = False, **more: Any) -> Any:
    """Write a random Qwen3ForCausalLM; returns it as transformers reads it again, in float32."""
    from transformers import Qwen3Config as TheirConfig
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(1)
    model = Qwen3ForCausalLM(TheirConfig(**SIZES | more)).eval()
    model = model.bfloat16() if half else model
    model.save_pretrained(folder, max_shard_size="40KB" if shards else "1GB")
    return Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("how", "settings"),
    [({}, {"tie_word_embeddings": True}), ({"shards": True}, {}), ({"half": True}, {"max_position_embeddings": 64})],
)
def test_imports_what_transformers_saves(how: Any, settings: Any, tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e6}
    theirs = save(tmp_path, **how, **settings, rope_parameters=rope)
    config, state = import_model(tmp_path)
    assert isinstance(config, Qwen3Config)
    tied, context = settings.get("tie_word_embeddings", False), settings.get("max_position_embeddings", 32768)
    assert (config.tied, config.max_seq_len, config.rope_theta, config.n_kv_head) == (tied, context, 1e6, 2)
    ours = build(config).eval()
    ours.load_state_dict(state)
    ids = torch.randint(400, (2, 48))
    assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-5


def test_a_configuration_of_version_4_is_understood(tmp_path: Path) -> None:
    """There rope_theta lies at the top, as in the folders that Qwen published."""
    theirs = save(tmp_path, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    content = json.loads((tmp_path / "config.json").read_bytes())
    del content["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(content | {"rope_theta": 5e5, "rope_scaling": None}))
    config, state = import_model(tmp_path)
    assert isinstance(config, Qwen3Config)
    assert config.rope_theta == 5e5
    ours = build(config).eval()
    ours.load_state_dict(state)
    ids = torch.randint(400, (2, 48))
    assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-5


def test_what_computes_something_else_is_refused(tmp_path: Path) -> None:
    save(tmp_path, tie_word_embeddings=True)
    weights = load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_bytes())

    def attempt(changed: dict[str, Any], weights: Any = weights) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config | changed))
        save_file(weights, tmp_path / "model.safetensors")
        import_model(tmp_path)

    attempt({})
    with pytest.raises(UserError, match="hidden_act gelu, rms_norm_eps 1e-05, attention_bias True"):
        attempt({"hidden_act": "gelu", "rms_norm_eps": 1e-5, "attention_bias": True})
    with pytest.raises(UserError, match="use_sliding_window True"):
        attempt({"use_sliding_window": True, "layer_types": None})
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8192}
    with pytest.raises(UserError, match="rope_type yarn"):
        attempt({"rope_parameters": yarn})
    head = weights["model.embed_tokens.weight"]
    attempt({}, {**weights, "lm_head.weight": head.clone()})
    with pytest.raises(UserError, match="a head of its own"):
        attempt({}, {**weights, "lm_head.weight": head + 1})
    lost = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(UserError, match=rf"lacks the weight {lost}"):
        attempt({}, {name: value for name, value in weights.items() if name != lost})
    with pytest.raises(UserError, match=r"lacks the weight lm_head\.weight"):
        attempt({"tie_word_embeddings": False})
