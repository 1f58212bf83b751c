"""Generation, compared with the full forward pass and with transformers' greedy search and logits processors."""

import math
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from builders import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt.checkpoint.load import load_for_inference
from kogpt.common.errors import UserError
from kogpt.generate.decode import generate
from kogpt.generate.logits import process_logits
from kogpt.generate.sampling import COLDEST, Sampling
from kogpt.generate.stream import continue_texts, generate_text, stream_text
from kogpt.hub.gpt2 import GPT2Adapter
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.model.kv_cache import KVCache
from kogpt.tokenizer.codec import TextCodec

CONFIG_SMALL = GPTConfig(vocab_size=97, max_seq_len=24, n_layer=2, n_head=2, n_embd=32)
PROMPTS = [[2, 5, 9], [2], [2, 7, 7, 30, 41, 8, 15], [2, 11]]


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(3)
    made = GPT(CONFIG_SMALL).eval()
    with torch.no_grad():  # far from uniform, so that the most probable id is never a matter of rounding
        for parameter in made.parameters():
            parameter.mul_(6 if parameter.dim() == 2 else 1)
    return made


@pytest.fixture(scope="module")
def reference(model: GPT):
    from transformers import GPT2Config, GPT2LMHeadModel

    c = CONFIG_SMALL
    made = GPT2LMHeadModel(
        GPT2Config(vocab_size=c.vocab_size, n_positions=c.max_seq_len, n_embd=32, n_layer=2, n_head=2)
    )
    missing = made.load_state_dict(GPT2Adapter().export_weights(model.state_dict(), c), strict=False)
    assert missing.missing_keys == ["lm_head.weight"]
    assert not missing.unexpected_keys
    made.tie_weights()
    return made.eval()


def rows(steps) -> list[list[int]]:
    """The tokens of each row, without the None after its end."""
    return [[id for id in row if id is not None] for row in zip(*steps, strict=True)]


def test_cached_logits_equal_the_full_forward(model):
    ids = torch.randint(CONFIG_SMALL.vocab_size, (3, CONFIG_SMALL.max_seq_len))
    cache = KVCache(CONFIG_SMALL, 3)
    parts = [model(ids[:, :5], cache=cache)]
    parts += [model(ids[:, t : t + 1], cache=cache) for t in range(5, CONFIG_SMALL.max_seq_len)]
    assert (torch.cat(parts, 1) - model(ids)).abs().max() < 1e-5


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_equals_transformers(model, reference, penalty):
    count = 12
    sampling = Sampling(max_new_tokens=count, greedy=True, repetition_penalty=penalty)
    ours = rows(generate(model, PROMPTS, sampling))
    for prompt, row in zip(PROMPTS, ours, strict=True):
        theirs = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=count,
            do_sample=False,
            repetition_penalty=penalty,
            pad_token_id=0,
            eos_token_id=None,
        )
        assert row == theirs[0, len(prompt) :].tolist()


@pytest.mark.parametrize("greedy", [True, False])
def test_a_row_does_not_depend_on_its_neighbours(model, greedy):
    """60 tokens at a context of 24, so that the windows slide, in each row at other steps."""
    sampling = Sampling(max_new_tokens=60, greedy=greedy, seed=5, top_k=20)
    together = rows(generate(model, PROMPTS, sampling, seeds=[7, 8, 9, 10]))
    for prompt, seed, row in zip(PROMPTS, [7, 8, 9, 10], together, strict=True):
        assert rows(generate(model, [prompt], sampling, seeds=[seed])) == [row]


def test_beyond_the_context_each_id_follows_from_a_window_of_the_last_ones(model):
    sampling = Sampling(max_new_tokens=70, greedy=True)
    history = PROMPTS[2][:]
    limit, start = CONFIG_SMALL.max_seq_len, 0
    [produced] = rows(generate(model, [history], sampling))
    for id in produced:
        if len(history) - start > limit:
            start = len(history) - limit // 2
        assert model(torch.tensor([history[start:]]))[0, -1].argmax().item() == id
        history.append(id)
    long = [int(i) for i in torch.randint(97, (90,))]
    assert rows(generate(model, [long], Sampling(max_new_tokens=1, greedy=True))) == [
        [model(torch.tensor([long[-limit:]]))[0, -1].argmax().item()]
    ]


def test_seeds_reproduce_and_differ(model):
    def run(seed):
        return rows(generate(model, [[2]] * 3, Sampling(max_new_tokens=20, temperature=2.0, seed=seed)))

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert run(1)[1] == run(2)[0]  # row i has seed + i
    assert len({tuple(row) for row in run(1)}) == 3


def test_samples_follow_the_probabilities(model):
    """10,000 second ids against the model's distribution: a chi-square statistic within 5 deviations."""
    sampling = Sampling(max_new_tokens=1, temperature=3.0, top_k=10)
    draws = torch.tensor(next(iter(generate(model, [[5]] * 10000, sampling))))
    with torch.no_grad():
        wanted = process_logits(model(torch.tensor([[5]]))[:, -1], None, sampling).softmax(-1)[0] * 10000
    counts = torch.bincount(draws, minlength=97).float()
    assert counts[wanted == 0].sum() == 0
    kept = wanted > 0
    statistic = ((counts - wanted)[kept] ** 2 / wanted[kept]).sum().item()
    freedom = int(kept.sum()) - 1
    assert freedom == 9
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


@settings(max_examples=60)
@given(
    temperature=st.floats(0.2, 3.0),
    top_k=st.integers(0, 60),
    # so near to 1 that rounding decides which ids the sum still needs, the two may differ
    top_p=st.just(1.0) | st.floats(0.05, 0.999),
    penalty=st.floats(0.5, 2.0),
    seed=st.integers(0, 10_000),
)
def test_logits_processing_equals_transformers_processors(temperature, top_k, top_p, penalty, seed):
    from transformers import (
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 50, generator=generator, dtype=torch.float64) * 3
    ids = torch.randint(50, (3, 12), generator=generator)
    seen = torch.zeros(3, 50, dtype=torch.bool).scatter(1, ids, True)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    theirs = TemperatureLogitsWarper(temperature)(ids, theirs)
    if top_k:
        theirs = TopKLogitsWarper(top_k)(ids, theirs)
    if top_p < 1.0:
        theirs = TopPLogitsWarper(top_p)(ids, theirs)
    ours = process_logits(
        logits,
        seen,
        Sampling(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty),
    )
    assert torch.equal(ours.isinf(), theirs.isinf())
    kept = ~ours.isinf()
    assert torch.allclose(ours[kept], theirs[kept])


def test_a_top_p_that_float32_rounds_to_0_leaves_one_token():
    kept = process_logits(torch.randn(3, 50), None, Sampling(top_p=1e-46))
    assert (~kept.isinf()).sum(-1).tolist() == [1, 1, 1]


def test_the_lowest_temperature_and_the_highest_seed_work(model):
    coldest = Sampling(max_new_tokens=5, temperature=COLDEST, seed=10**18 - 1)
    greedy = Sampling(max_new_tokens=5, greedy=True)
    assert rows(generate(model, PROMPTS, coldest)) == rows(generate(model, PROMPTS, greedy))


def test_a_row_ends_at_the_stop_id(model):
    [free] = rows(generate(model, [[2]], Sampling(max_new_tokens=10, greedy=True)))
    stop = free[4]
    steps = list(generate(model, [[2], [2, 5, 9]], Sampling(max_new_tokens=10, greedy=True), stop_id=stop))
    first = [step[0] for step in steps]
    assert first[: free.index(stop) + 1] == free[: free.index(stop) + 1]
    assert set(first[free.index(stop) + 1 :]) <= {None}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with a random model and a tokenizer trained on a few sentences."""
    return make_run(tmp_path_factory.mktemp("run"), n_layer=1, n_embd=16, spread=0.0)


def test_text_streams_and_equals_the_decoded_whole(run, monkeypatch):
    codec = TextCodec(run / "tokenizer")
    sampling = Sampling(max_new_tokens=40, temperature=1.5, seed=3)
    prompts = ["나는 학교에", "", "오늘은\n"]
    pieces = list(generate_text(run, prompts, sampling, samples=2, device="cpu"))
    assert len(pieces) > 6 * 5, "it did not stream"
    assert sorted((p.prompt, p.sample) for p in pieces if p.last) == [(i, j) for i in range(3) for j in range(2)]

    model = load_for_inference(run).model
    tokenizer = codec.tokenizer
    whole = continue_texts(model, codec, prompts, sampling, samples=2)
    for i, prompt in enumerate(prompts):
        ids = [tokenizer.cls_id, *codec.encode(prompt)]
        for j in range(2):
            text = "".join(p.text for p in pieces if (p.prompt, p.sample) == (i, j))
            assert text == whole[i][j]
            [row] = rows(generate(model, [ids], sampling, stop_id=tokenizer.sep_id, seeds=[sampling.seed + j]))
            assert prompt + text == codec.decode(ids + row)
        assert whole[i][0] != whole[i][1]
    shape = model.config
    of_a_row = 2 * shape.n_layer * shape.n_embd * shape.max_seq_len * 4
    monkeypatch.setattr("kogpt.generate.stream._CACHE_BYTES", 4 * of_a_row + 1)
    calls = Mock(side_effect=generate)
    monkeypatch.setattr("kogpt.generate.stream.generate", calls)
    assert continue_texts(model, codec, prompts, sampling, samples=2) == whole
    assert [len(call.args[1]) for call in calls.call_args_list] == [4, 2]


def test_stream_ends_at_the_end_of_the_article(run):
    """A model that always answers [SEP] gives an empty text that is marked as the last."""

    codec = TextCodec(run / "tokenizer")
    model = load_for_inference(run).model
    with torch.no_grad():
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(model.wte.weight[codec.tokenizer.sep_id] * 1e6)
    [piece] = stream_text(model, codec, ["나는"], Sampling(greedy=True))
    assert piece == (0, 0, "", True)


def test_bad_settings_are_all_named_at_once():
    with pytest.raises(UserError) as caught:
        Sampling(max_new_tokens=0, temperature=1e-45, top_k=-1, top_p=0.0, repetition_penalty=-1.0, seed=10**19)
    for flag in ("--max-new-tokens", "--temperature", "--top-k", "--top-p", "--repetition-penalty", "--seed"):
        assert flag in str(caught.value)
    with pytest.raises(UserError, match="--repetition-penalty"):
        Sampling(repetition_penalty=1e-40)
    for odd in (math.nan, math.inf):
        with pytest.raises(UserError, match=r"(?s)--temperature.*--repetition-penalty"):
            Sampling(temperature=odd, repetition_penalty=odd)
    with pytest.raises(ValueError, match=r"\[CLS\]"):
        next(generate(GPT(CONFIG_SMALL), [[]], Sampling()))
