"""Every parameter is in one group; biases and layer norms do not decay."""

from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.model.qwen3 import Qwen3, Qwen3Config
from kogpt.optim.muon import cost
from kogpt.optim.parameter_groups import hidden_count, hidden_matrices, parameter_groups, update_flops


def test_parameter_groups_hold_every_parameter_once():
    model = GPT(GPTConfig(vocab_size=301, max_seq_len=32, n_layer=3, n_head=4, n_embd=48))
    decayed, kept = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert sorted(names.values()) == sorted(names[id(p)] for p in decayed["params"] + kept["params"])
    assert all("ln_" not in names[id(p)] and "bias" not in names[id(p)] for p in decayed["params"])
    assert all("ln_" in names[id(p)] or "bias" in names[id(p)] for p in kept["params"])


def test_hidden_matrices_are_counted_on_one_block_and_those_of_gpt2_in_parts():
    gpt2 = GPTConfig(vocab_size=301, max_seq_len=32, n_layer=3, n_head=4, n_embd=48)
    qwen3 = Qwen3Config(301, 32, **Qwen3Config.shape_of_depth(3))
    for model in (GPT(gpt2), Qwen3(qwen3)):
        assert hidden_count(model.config) == sum(matrix.numel() for matrix in hidden_matrices(model).values())
    assert update_flops(qwen3) == sum(cost(*matrix.shape) for matrix in hidden_matrices(Qwen3(qwen3)).values())
    assert update_flops(gpt2) == 3 * (4 * cost(48, 48) + 2 * cost(48, 192))
