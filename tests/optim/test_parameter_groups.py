"""Every parameter is in one group; biases and layer norms do not decay."""

from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.optim.parameter_groups import parameter_groups


def test_parameter_groups_hold_every_parameter_once():
    model = GPT(GPTConfig(vocab_size=301, max_seq_len=32, n_layer=3, n_head=4, n_embd=48))
    decayed, kept = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert sorted(names.values()) == sorted(names[id(p)] for p in decayed["params"] + kept["params"])
    assert all("ln_" not in names[id(p)] and "bias" not in names[id(p)] for p in decayed["params"])
    assert all("ln_" in names[id(p)] or "bias" in names[id(p)] for p in kept["params"])
