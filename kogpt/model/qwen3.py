"""The Qwen3 decoder in one file, in reading order: configuration, rotation, attention, MLP, block, model.

In: tokens [B, T] int64. Out: logits [B, T, V], or with targets [B, T] int64 (`IGNORED` = not scored) the summed
cross-entropy as a float32 scalar.

Architecture (Yang et al. 2025, section 2; as transformers' `Qwen3ForCausalLM`): RMSNorm before attention and MLP,
rotary positions (Su et al. 2021, halves rotated), queries and keys normalized per head before they are rotated,
grouped-query attention with heads of any size, SwiGLU, no biases, a head that is tied to the embedding or not. Queries,
keys, and values have a matrix each, because Muon orthogonalizes each matrix for itself. The parameters have the names
of `transformers`, except that the layers are called `blocks`.

Embedding and head are initialized from normal(0, 0.02), matrices from normal(0, 1 / sqrt(C)), so that SwiGLU has
signals of size 1 at every width. The two matrices of a block that write to the residual stream start at 0, so that a
new block changes nothing (modded-nanogpt, nanochat).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogpt.model.attention import attend, document_mask
from kogpt.model.config import ModelConfig, Precision
from kogpt.model.decoder import Decoder
from kogpt.model.kv_cache import KVCache
from kogpt.model.layers import RMSNorm, VocabMatrix
from kogpt.model.packed import Linear, rms_norm

HEAD_DIM = 128
"""The size of a head in `shape_of_depth`; nanochat found 128 better than 64."""


@dataclass(frozen=True)
class Qwen3Config(ModelConfig):
    """The shape of a Qwen3. The defaults are those of depth 12."""

    arch: ClassVar[str] = "qwen3"
    any_context: ClassVar[bool] = True

    vocab_size: int = 50257
    max_seq_len: int = 256
    n_layer: int = 12
    n_head: int = 6
    n_embd: int = 768
    n_kv_head: int = 6
    head_dim: int = HEAD_DIM
    n_inner: int = 2048
    tied: bool = True
    """Is the head the embedding's matrix?"""
    rope_theta: float = 10000.0
    """The base of the rotation's wavelengths."""

    def problems(self) -> list[str]:
        problems = super().problems()
        sizes = {name: getattr(self, name) for name in ("n_kv_head", "head_dim", "n_inner")}
        problems += [f"{name} is {value}, must be at least 1" for name, value in sizes.items() if value < 1]
        if self.n_kv_head >= 1 and self.n_head % self.n_kv_head:
            problems.append(f"n_head {self.n_head} is not a multiple of n_kv_head {self.n_kv_head}")
        if self.head_dim % 2:
            problems.append(f"head_dim {self.head_dim} is odd, but rotary positions need two halves")
        if not self.rope_theta > 0:
            problems.append(f"rope_theta is {self.rope_theta}, must be above 0")
        return problems

    @classmethod
    def shape_of_depth(cls, depth: int) -> dict[str, Any]:
        """The MLP's three matrices are about as large as the two of GPT-2: 8/3 of the width, to a multiple of 64."""
        width, heads = 64 * depth, -(-64 * depth // HEAD_DIM)
        inner = 64 * max(1, round(width / 24))
        attention = {"n_head": heads, "n_kv_head": heads, "head_dim": HEAD_DIM}
        return {"n_layer": depth, "n_embd": width, **attention, "n_inner": inner}

    @property
    def parameter_count(self) -> int:
        attention = 2 * self.n_embd * self.head_dim * (self.n_head + self.n_kv_head)
        norms = 2 * self.n_embd + 2 * self.head_dim
        block = attention + 3 * self.n_embd * self.n_inner + norms
        vocabulary = self.vocab_size * self.n_embd
        return vocabulary * (1 if self.tied else 2) + self.n_layer * block + self.n_embd

    def flops_per_token(self, seq_len: int) -> int:
        """6 N + 12 L H D T (N parameters, L layers, H heads of size D, a context of T tokens), as for GPT-2.

        N includes the head, and excludes an embedding that is not tied to it, because that is only looked up.
        """
        parameters = self.parameter_count - (0 if self.tied else self.vocab_size * self.n_embd)
        return 6 * parameters + 12 * self.n_layer * self.n_head * self.head_dim * seq_len

    def activation_bytes(self, *, precision: Precision, micro_batch: int, seq_len: int) -> int:
        """Counted per layer and token (width C, query width Q, key width K, inner width I):

        - inputs and outputs of the two norms: 4 C
        - query and key before their norms: Q + K; query, key, and value in attention, where every head has its own:
          3 Q; attention's output: Q
        - gate, its SiLU, the other branch, their product: 4 I
        - with dropout, two masks of one byte per element

        Under autocast the inputs of the norms are float32 and the rest is in half precision. After the blocks come
        the last norm, and the gradients that the chunked loss holds for it and for the head.
        """
        tokens, width = micro_batch * seq_len, self.n_embd
        size = 4 if precision == "fp32" else 2
        query, key = self.n_head * self.head_dim, self.n_kv_head * self.head_dim
        layer = size * (4 * width + 5 * query + key + 4 * self.n_inner)
        if precision == "autocast":
            layer += 2 * 2 * width
        if self.dropout:
            layer += 2 * width
        head = (3 * tokens + self.vocab_size) * width * size
        return tokens * layer * self.n_layer + head

    def kv_cache_shape(self, batch: int) -> tuple[int, int, int, int, int]:
        return self.n_layer, batch, self.n_kv_head, self.max_seq_len, self.head_dim


Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the angles of each position: [T, D/2], or [B, 1, T, D/2], float32."""


def rotation_of(positions: Tensor, config: Qwen3Config) -> Rotation:
    """The angles of positions [T] or [B, T]. Pair i of a head turns by position * theta^(-2i / D)."""
    evens = torch.arange(0, config.head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * (1.0 / config.rope_theta ** (evens / config.head_dim))
    if angles.dim() == 3:
        angles = angles[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys [B, head, T, D] turned by their positions. Pair i is the elements i and i + D/2."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Rotary(nn.Module):
    """`rotation_of`, as a part of the model."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.config = config

    def forward(self, positions: Tensor) -> Rotation:
        return rotation_of(positions, self.config)

    def decoding(self, linear: Linear) -> Callable[[Tensor], Rotation]:
        """The rotations of positions [B, T], [B, T, 1, D] each, for `Block.decoding`: from a table of all positions."""
        cos, sin = rotation_of(torch.arange(self.config.max_seq_len), self.config)
        cos, sin = torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]
        return lambda positions: (cos[positions], sin[positions])


class Attention(nn.Module):
    """Causal grouped-query attention: each key and value serves n_head / n_kv_head queries."""

    def __init__(self, config: Qwen3Config, layer: int) -> None:
        super().__init__()
        self.head_dim, self.dropout, self.layer = config.head_dim, config.dropout, layer
        self.groups = config.n_head // config.n_kv_head
        query, key = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
        self.q_proj = nn.Linear(config.n_embd, query, bias=False)
        self.k_proj = nn.Linear(config.n_embd, key, bias=False)
        self.v_proj = nn.Linear(config.n_embd, key, bias=False)
        self.o_proj = nn.Linear(query, config.n_embd, bias=False)
        self.q_norm = RMSNorm(config.head_dim)
        self.k_norm = RMSNorm(config.head_dim)

    def forward(
        self, x: Tensor, rotation: Rotation, cache: KVCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        query, key, value = (
            projection(x).unflatten(-1, (-1, self.head_dim)) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query = rotate(self.q_norm(query).transpose(1, 2), rotation)
        key = rotate(self.k_norm(key).transpose(1, 2), rotation)
        value = value.transpose(1, 2)
        if cache is not None:
            out = cache.attend(self.layer, query, key, value)
        else:
            if self.groups > 1:  # the fused kernels for fp32, for masks, and for older GPUs take no groups
                key, value = (part.repeat_interleave(self.groups, 1) for part in (key, value))
            dropout = self.dropout if self.training else 0.0
            out = attend(query, key, value, mask, dropout)
        out = self.o_proj(out.transpose(1, 2).flatten(2))
        return F.dropout(out, self.dropout) if self.training else out


class MLP(nn.Module):
    """The feed-forward layer, SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.gate_proj = nn.Linear(config.n_embd, config.n_inner, bias=False)
        self.up_proj = nn.Linear(config.n_embd, config.n_inner, bias=False)
        self.down_proj = nn.Linear(config.n_inner, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return F.dropout(x, self.dropout) if self.training else x


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Qwen3Config, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.n_embd)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, rotation: Rotation, cache: KVCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, cache, mask)
        return x + self.mlp(self.post_attention_layernorm(x))

    def decoding(self, linear: Linear) -> Callable[[Tensor, Rotation, KVCache, None], Tensor]:
        """`forward` with a cache, for kogpt.model.packed: one product for queries, keys, and values, one for the MLP's
        first two, and one norm and rotation for queries and keys."""
        attn, mlp, eps = self.self_attn, self.mlp, self.input_layernorm.eps
        layer, size, half = attn.layer, attn.head_dim, attn.head_dim // 2
        heads, kv_heads = (len(part.weight) // size for part in (attn.q_proj, attn.k_proj))
        norm_1, norm_2 = (rms_norm(part.weight, eps) for part in (self.input_layernorm, self.post_attention_layernorm))
        weights = attn.q_norm.weight.expand(heads, -1), attn.k_norm.weight.expand(kv_heads, -1)
        norm_heads = rms_norm(torch.cat(weights), eps)
        project = linear(torch.cat([part.weight for part in (attn.q_proj, attn.k_proj, attn.v_proj)]))
        gate_up = linear(torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)))
        o_proj, down_proj = linear(attn.o_proj.weight), linear(mlp.down_proj.weight)

        def block(x: Tensor, rotation: Rotation, cache: KVCache, mask: None) -> Tensor:
            batch, length, width = x.shape
            rows, (cos, sin) = x.view(-1, width), rotation
            both, value = project(norm_1(rows)).view(batch, length, -1, size).split([heads + kv_heads, kv_heads], 2)
            both = norm_heads(both)
            both = torch.addcmul(both * cos, both.roll(half, -1), sin)
            query, key = both.transpose(1, 2).split([heads, kv_heads], 1)
            out = cache.attend(layer, query, key, value.transpose(1, 2))
            rows = o_proj(out.transpose(1, 2).reshape(-1, heads * size)).add_(rows)
            gate, up = gate_up(norm_2(rows)).chunk(2, -1)
            return down_proj(F.silu(gate) * up).add_(rows).view(batch, length, width)

        return block


class Qwen3(Decoder):
    """The model. `forward` computes logits or the loss; `hidden` and `logits` are its two halves."""

    VOCABULARY = ("embed_tokens.weight", "lm_head.weight")
    config: Qwen3Config

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__(config)
        with torch.random.fork_rng(devices=[]):  # what torch's layers draw for themselves does not count
            self.embed_tokens = VocabMatrix(config.vocab_size, config.n_embd)
            self.rotary = Rotary(config)
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
            self.norm = RMSNorm(config.n_embd)
            self.lm_head = None if config.tied else VocabMatrix(config.vocab_size, config.n_embd)
        self._initialise_all()

    def initialise(self, name: str, parameter: Tensor) -> None:
        if parameter.dim() < 2:
            nn.init.ones_(parameter)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
        elif name == "embed_tokens.weight" and self.config.tied:
            # At the start a token's own logit is std * width. More than 5 of it would be a wrong guess, made surely.
            nn.init.normal_(parameter, std=min(0.02, 5 / self.config.n_embd))
        elif name in self.VOCABULARY:
            nn.init.normal_(parameter, std=0.02)
        else:
            nn.init.normal_(parameter, std=self.config.n_embd**-0.5)

    @property
    def head(self) -> VocabMatrix:
        """The matrix that turns hidden states into logits."""
        return self.embed_tokens if self.lm_head is None else self.lm_head

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        length = ids.size(1)
        limit = self.config.max_seq_len if cache is None else cache.room
        if length > limit:
            raise ValueError(f"{length} tokens, but only {limit} fit (max_seq_len {self.config.max_seq_len})")
        if cache is not None:
            positions = cache.positions(length)
        if positions is None:
            positions = torch.arange(length, device=ids.device)
        rotation = self.rotary(positions)
        x = self.embed_tokens(ids, "embed")
        if self.training:
            x = F.dropout(x, self.config.dropout)
        mask = None
        if documents is not None:
            mask = document_mask(documents, x, self.config.head_dim, self.config.dropout if self.training else 0.0)
        for block in self.blocks:
            x = block(x, rotation, cache, mask)
        if cache is not None:
            cache.advance(length)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden, "logits")

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        hidden = self.hidden(ids, positions, documents, cache)
        return self.logits(hidden) if targets is None else self.head(hidden, "loss", targets)

    @torch.no_grad()
    def token_nll(self, ids: Tensor, targets: Tensor) -> Tensor:
        return self.head(self.hidden(ids), "nll", targets)
