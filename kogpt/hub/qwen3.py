"""Qwen3 to and from `transformers`' Qwen3ForCausalLM: names, and what the two configurations mean."""

import json
from typing import Any

import torch
from torch import Tensor

from kogpt.common.errors import UserError
from kogpt.model.config import ModelConfig
from kogpt.model.qwen3 import Qwen3, Qwen3Config

_HEAD = "lm_head.weight"

# Settings of transformers' Qwen3Config that change the computation, with the value that our model uses.
_ARITHMETIC: dict[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "use_sliding_window": False,
}


class Qwen3Adapter:
    """See kogpt.hub.adapters.Adapter."""

    title = "Qwen3"
    model_type = "qwen3"

    def export_config(self, config: ModelConfig, special_tokens: dict[str, int]) -> dict[str, Any]:
        from transformers import Qwen3Config as Theirs

        assert isinstance(config, Qwen3Config)
        theirs = Theirs(
            vocab_size=config.vocab_size,
            hidden_size=config.n_embd,
            intermediate_size=config.n_inner,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.n_kv_head,
            head_dim=config.head_dim,
            max_position_embeddings=config.max_seq_len,
            tie_word_embeddings=config.tied,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            attention_dropout=config.dropout,
            architectures=["Qwen3ForCausalLM"],
        )
        # Version 4 of transformers and other engines look for rope_theta at the top.
        return json.loads(theirs.to_json_string()) | special_tokens | {"rope_theta": config.rope_theta}

    def export_weights(self, state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        return {_theirs(name): value.detach().cpu().float().contiguous() for name, value in state.items()}

    def gguf_fields(self, config: ModelConfig) -> dict[str, int | float]:
        assert isinstance(config, Qwen3Config)
        return {
            "block_count": config.n_layer,
            "context_length": config.max_seq_len,
            "embedding_length": config.n_embd,
            "feed_forward_length": config.n_inner,
            "attention.head_count": config.n_head,
            "attention.head_count_kv": config.n_kv_head,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.freq_base": config.rope_theta,
        }

    def gguf_weights(self, state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        return self.export_weights(state, config)

    def import_config(self, config: dict[str, Any], state: dict[str, Tensor], place: str) -> Qwen3Config:
        from transformers import Qwen3Config as Theirs

        theirs = Theirs.from_dict(config)
        odd = [f"{key} {getattr(theirs, key)}" for key, ours in _ARITHMETIC.items() if getattr(theirs, key) != ours]
        rope = theirs.rope_parameters
        if rope["rope_type"] != "default":
            odd.append(f"rope_type {rope['rope_type']}")
        if odd:
            raise UserError(
                f"{place}/config.json has {', '.join(odd)}, which our Qwen3 does not have; it cannot be imported."
            )
        embedding = state.get("model.embed_tokens.weight")
        return Qwen3Config(
            vocab_size=theirs.vocab_size if embedding is None else embedding.size(0),
            max_seq_len=theirs.max_position_embeddings,
            n_layer=theirs.num_hidden_layers,
            n_head=theirs.num_attention_heads,
            n_embd=theirs.hidden_size,
            n_kv_head=theirs.num_key_value_heads,
            head_dim=theirs.head_dim,
            n_inner=theirs.intermediate_size,
            tied=theirs.tie_word_embeddings,
            rope_theta=float(rope["rope_theta"]),
        )

    def import_weights(self, state: dict[str, Tensor], config: ModelConfig, place: str) -> dict[str, Tensor]:
        assert isinstance(config, Qwen3Config)
        with torch.device("meta"):
            names = list(Qwen3(config).state_dict())
        if missing := [_theirs(name) for name in names if _theirs(name) not in state]:
            raise UserError(f"{place} lacks the weight {missing[0]}; download it again.")
        head = state.get(_HEAD)
        if config.tied and head is not None and not torch.equal(head, state["model.embed_tokens.weight"]):
            raise UserError(
                f'{place} has a head of its own, but "tie_word_embeddings" in its config.json is true; set it to false.'
            )
        return {name: state[_theirs(name)].float().contiguous() for name in names}


def _theirs(name: str) -> str:
    """The name of our parameter in `transformers`."""
    return name if name == _HEAD else f"model.{name.replace('blocks.', 'layers.')}"
