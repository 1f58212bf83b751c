"""GPT-2 to and from `transformers`' GPT2LMHeadModel: names, layouts, and what the two configurations mean.

`transformers` keeps the matrices of a block transposed (its Conv1D). The tied head is stored once, as wte.
"""

import json
from typing import Any

import torch
from torch import Tensor

from kogpt.common.errors import UserError
from kogpt.model.config import ModelConfig
from kogpt.model.gpt2 import GPTConfig

# (ours, theirs): the layers of a block, each with a weight and a bias.
_BLOCK_NAMES = (
    ("ln_1", "ln_1"),
    ("attn.qkv", "attn.c_attn"),
    ("attn.proj", "attn.c_proj"),
    ("ln_2", "ln_2"),
    ("mlp.fc", "mlp.c_fc"),
    ("mlp.proj", "mlp.c_proj"),
)
_OUTER_NAMES = ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")

# Settings of transformers' GPT2Config that change the computation, with the values that our model uses.
_ARITHMETIC: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


class GPT2Adapter:
    """See kogpt.hub.adapters.Adapter."""

    title = "GPT-2"
    model_type = "gpt2"

    def export_config(self, config: ModelConfig, special_tokens: dict[str, int]) -> dict[str, Any]:
        from transformers import GPT2Config

        theirs = GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.max_seq_len,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            attn_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            resid_pdrop=config.dropout,
            architectures=["GPT2LMHeadModel"],
        )
        return json.loads(theirs.to_json_string()) | special_tokens | {"n_ctx": config.max_seq_len}  # for llama.cpp

    def export_weights(self, state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        out = {f"transformer.{name}": state[name] for name in _OUTER_NAMES}
        for layer in range(config.n_layer):
            for ours, theirs in _BLOCK_NAMES:
                weight = state[f"blocks.{layer}.{ours}.weight"]
                out[f"transformer.h.{layer}.{theirs}.weight"] = weight.T if weight.dim() == 2 else weight
                out[f"transformer.h.{layer}.{theirs}.bias"] = state[f"blocks.{layer}.{ours}.bias"]
        return {name: value.detach().cpu().float().contiguous() for name, value in out.items()}

    def gguf_fields(self, config: ModelConfig) -> dict[str, int | float]:
        return {
            "block_count": config.n_layer,
            "context_length": config.max_seq_len,
            "embedding_length": config.n_embd,
            "feed_forward_length": 4 * config.n_embd,
            "attention.head_count": config.n_head,
            "attention.layer_norm_epsilon": 1e-5,
        }

    def gguf_weights(self, state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        weights = self.export_weights(state, config)
        return {
            name: value.T.contiguous() if ".h." in name and value.dim() == 2 else value
            for name, value in weights.items()
        }

    def import_config(self, config: dict[str, Any], state: dict[str, Tensor], place: str) -> GPTConfig:
        odd = [
            f"{key} {config[key]}"
            for key, good in _ARITHMETIC.items()
            if config.get(key) is not None and config[key] not in good
        ]
        if config.get("n_inner") not in (None, 4 * config["n_embd"]):
            odd.append(f"n_inner {config['n_inner']}")
        if odd:
            raise UserError(
                f"{place}/config.json has {', '.join(odd)}, which a plain GPT-2 does not have; it cannot be imported."
            )
        # Use the sizes of the tensors, because some published configurations belong to another checkpoint.
        state = _without_prefix(state)
        sizes = {name: state[name].size(0) for name in ("wte.weight", "wpe.weight") if name in state}
        return GPTConfig(
            vocab_size=sizes.get("wte.weight", config["vocab_size"]),
            max_seq_len=sizes.get("wpe.weight", config["n_positions"]),
            n_layer=config["n_layer"],
            n_head=config["n_head"],
            n_embd=config["n_embd"],
        )

    def import_weights(self, state: dict[str, Tensor], config: ModelConfig, place: str) -> dict[str, Tensor]:
        state = _without_prefix(state)
        try:
            out = {name: state[name] for name in _OUTER_NAMES}
            for layer in range(config.n_layer):
                for ours, theirs in _BLOCK_NAMES:
                    weight = state[f"h.{layer}.{theirs}.weight"]
                    out[f"blocks.{layer}.{ours}.weight"] = weight.T if weight.dim() == 2 else weight
                    out[f"blocks.{layer}.{ours}.bias"] = state[f"h.{layer}.{theirs}.bias"]
        except KeyError as missing:
            raise UserError(f"{place} lacks the weight {missing.args[0]}; download it again.") from None
        head = state.get("lm_head.weight")
        if head is not None and not torch.equal(head.float(), out["wte.weight"].float()):
            raise UserError(f"{place} has a head of its own; only models whose head is tied to wte can be imported.")
        return {name: value.float().contiguous() for name, value in out.items()}


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT2LMHeadModel's and GPT2Model's names alike."""
    return {name.removeprefix("transformer."): value for name, value in state.items()}
