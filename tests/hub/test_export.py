"""Export and import, compared with transformers: it loads the export and computes the same logits."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import SHAPES, TEXTS, make_run, make_tokenizer
from safetensors.torch import load_file, save_file

from kogpt.checkpoint.load import load_for_inference
from kogpt.common.errors import UserError
from kogpt.generate.decode import generate
from kogpt.generate.sampling import Sampling
from kogpt.hub.export import export_model
from kogpt.hub.weights import import_model
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import open_tokenizer


@pytest.fixture(scope="module", params=SHAPES)
def run(request, tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), arch=request.param)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "exported"
    export_model(run, folder, license="cc-by-sa-4.0", texts=TEXTS)
    return folder


def test_transformers_loads_it_and_logits_are_equal(run, exported):
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
    assert type(model).__name__ in ("GPT2LMHeadModel", "Qwen3ForCausalLM")
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours = load_for_inference(run).model
    assert model.config.model_type == ours.config.arch
    words = open_tokenizer(run / "tokenizer")
    for known in (model.config, model.generation_config):
        assert (known.bos_token_id, known.eos_token_id) == (words.cls_id, words.sep_id)
    ids = torch.randint(ours.config.vocab_size, (3, 32))
    assert (ours(ids) - model.eval()(ids).logits).abs().max() < 1e-5


def test_greedy_continuations_are_identical(run, exported):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(exported).eval()
    loaded = load_for_inference(run)
    codec = TextCodec(loaded.tokenizer_folder)
    for text in TEXTS:
        ids = [codec.tokenizer.cls_id, *codec.encode(text)][:12]
        sampling = Sampling(max_new_tokens=20, greedy=True)
        ours = [step[0] for step in generate(loaded.model, [ids], sampling, stop_id=codec.tokenizer.sep_id)]
        theirs = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=20,
            do_sample=False,
        )
        assert theirs[0, len(ids) :].tolist() == ours


@pytest.mark.parametrize("run", ["gpt2"], indirect=True)
def test_needs_no_code_of_ours(exported):
    """A Python that cannot import kogpt loads the folder and writes text."""
    code = (
        "import sys; sys.modules['kogpt'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"t = AutoTokenizer.from_pretrained({str(exported)!r})\n"
        f"m = AutoModelForCausalLM.from_pretrained({str(exported)!r})\n"
        "x = t('나는 학교에', return_tensors='pt')\n"
        "y = m.generate(**x, max_new_tokens=5, do_sample=False, min_new_tokens=5)\n"
        "assert y.shape[1] == x['input_ids'].shape[1] + 5\n"
        "print(m.generation_config.eos_token_id, t.convert_tokens_to_ids('[SEP]'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    stop, sep = done.stdout.split()
    assert stop == sep


@pytest.mark.ecosystem
def test_another_engine_writes_the_same(run, exported, tmp_path):
    """CTranslate2, a C++ engine with no PyTorch in it."""
    import ctranslate2
    from transformers import AutoTokenizer

    ctranslate2.converters.TransformersConverter(str(exported)).convert(str(tmp_path / "converted"))
    engine = ctranslate2.Generator(str(tmp_path / "converted"), device="cpu", intra_threads=1)
    plain = AutoTokenizer.from_pretrained(exported)
    loaded = load_for_inference(run)
    codec = TextCodec(loaded.tokenizer_folder)
    for text in TEXTS:
        ids = [codec.tokenizer.cls_id, *codec.encode(text)][:12]
        ours = [step[0] for step in generate(loaded.model, [ids], Sampling(max_new_tokens=20, greedy=True))]
        [theirs] = engine.generate_batch(
            [plain.convert_ids_to_tokens(ids)],
            max_length=20,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=[],
        )
        assert theirs.sequences_ids[0] == ours


def test_the_plain_tokenizer_gives_our_ids_for_raw_text_and_the_text_back(run, exported):
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(exported)
    assert (plain.bos_token, plain.eos_token, plain.pad_token) == ("[CLS]", "[SEP]", "[PAD]")
    assert plain.model_max_length == 32
    codec = TextCodec(run / "tokenizer")
    for text in [*TEXTS, "쌘 텼다  ##x\n\n\t끝 "]:
        assert plain.encode(text) == codec.encode(text)
        assert plain.decode(plain.encode(text)) == text


def test_an_older_run_is_exported_with_today_s_tokenizer(run, exported, tmp_path):
    """Its own tokenizer.json dropped line breaks, and runs of spaces."""
    old = tmp_path / "old"
    shutil.copytree(run, old)
    (old / "tokenizer" / "tokenizer.json").write_text("{}")
    export_model(old, tmp_path / "out", texts=TEXTS)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (exported / "tokenizer.json").read_bytes()


def test_card_has_numbers_license_fingerprint_and_measured_difference(run, exported):
    from transformers import AutoTokenizer

    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlanguage: ko\nlicense: cc-by-sa-4.0\n")
    for part in ("c0ffee" * 10, "| step | 5 |", "| tokens | 500 |", "| seed | 31 |", "`none`"):
        assert part in card
    assert "| training loss | 2.5000 nats per token |" in card
    assert "| validation | 3.2500 bits per character, 2.5000 nats per token, at step 4 |" in card
    assert "/home/me" not in card
    assert "llama.cpp" not in card
    assert "Decoding restores the text, in NFC and without control characters." in card
    plain = AutoTokenizer.from_pretrained(exported)
    codec = TextCodec(run / "tokenizer")
    ours = [codec.encode(text) for text in TEXTS]
    theirs = [plain.encode(text, add_special_tokens=False) for text in TEXTS]
    equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert equal == len(TEXTS)  # the analyzer is none
    assert f"gives {sum(map(len, theirs))} tokens instead of {sum(map(len, ours))}" in card
    assert f"{equal} sentences are identical" in card
    assert "was not measured; `kogpt export RUN FOLDER --corpus CORPUS` measures it." in card


def test_the_card_of_a_vocabulary_that_loses_white_space_says_so(tmp_path):
    export_model(make_run(tmp_path / "run", make_tokenizer(spacing="morphemes")), tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "Decoding does not restore all white space" in card
    assert "Decoding restores" not in card
    assert "--corpus" not in card, "which such a vocabulary cannot be measured with"


def test_the_card_states_what_is_lost_without_the_analyzer(corpus, tmp_path):
    from kogpt.data.corpus import TokenCorpus

    opened = TokenCorpus.open(corpus)
    run = make_run(tmp_path / "run", open_tokenizer(opened.tokenizer_folder))
    export_model(run, tmp_path / "out", corpus=corpus)
    card = (tmp_path / "out/README.md").read_text()
    assert f"On {len(opened.split('val'))} held-out articles (" in card
    assert "bits per character for raw text through `AutoTokenizer`" in card
    assert "--corpus" not in card
    assert "0.0 ± 0.0 % more" in card or "0.0 % more" in card
    with pytest.raises(UserError, match="another tokenizer than"):
        export_model(make_run(tmp_path / "other"), tmp_path / "out2", corpus=corpus)


def test_the_card_measures_on_the_run_s_own_corpus_while_it_is_there(corpus, tmp_path):
    from kogpt.data.corpus import TokenCorpus

    def card(number, folder, fingerprint):
        run = make_run(tmp_path / f"run{number}", open_tokenizer(corpus / "tokenizer"), corpus=fingerprint)
        about = json.loads((run / "run.json").read_bytes()) | {"corpus_folder": str(folder)}
        (run / "run.json").write_text(json.dumps(about))
        export_model(run, tmp_path / f"out{number}")
        return (tmp_path / f"out{number}/README.md").read_text()

    own = TokenCorpus.open(corpus).fingerprint
    assert "On 1 held-out articles (" in card(1, corpus, f"{own}=0.9 c0ffee=0.1")
    for number, (folder, fingerprint) in enumerate([(tmp_path / "gone", own), (corpus, "c0ffee")], 2):
        assert "was not measured" in card(number, folder, fingerprint)


def test_an_export_is_whole_or_absent_and_overwrites_nothing(run, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kogpt.hub.export.model_card", full_disk)
        with pytest.raises(OSError, match="No space"):
            export_model(run, tmp_path / "out", texts=TEXTS)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    export_model(run, tmp_path / "out", texts=TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(UserError, match="out is not empty"):
        export_model(run, tmp_path / "out", texts=TEXTS)


def test_round_trip(run, exported):
    loaded = load_for_inference(run).model
    config, state = import_model(exported)
    assert config == loaded.config
    assert state.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in state.items())


@pytest.mark.parametrize("how", ["safetensors", "shards", "bin", "bare", "fp16"])
def test_imports_any_gpt2_on_disk(tmp_path, how):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=400, n_positions=48, n_embd=32, n_layer=2, n_head=4)).eval()
    if how == "fp16":
        theirs = theirs.half()
    if how == "bare":  # the naming of the original release: no prefix, mask buffers stored
        theirs.config.save_pretrained(tmp_path)
        state = {k.removeprefix("transformer."): v for k, v in theirs.state_dict().items() if "lm_head" not in k}
        state["h.0.attn.bias"] = torch.ones(1, 1, 48, 48).tril()
        save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    elif how == "bin":
        theirs.config.save_pretrained(tmp_path)
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    else:
        theirs.save_pretrained(tmp_path, max_shard_size="40KB" if how == "shards" else "1GB")
    assert how != "shards" or len(list(tmp_path.glob("model-*.safetensors"))) > 1
    config, state = import_model(tmp_path)
    assert isinstance(config, GPTConfig)
    assert (config.vocab_size, config.max_seq_len, config.n_head) == (400, 48, 4)
    ours = GPT(config).eval()
    ours.load_state_dict(state)
    ids = torch.randint(400, (2, 48))
    assert (ours(ids) - theirs.float()(ids).logits).abs().max() < 1e-5


@pytest.mark.parametrize("run", ["gpt2"], indirect=True)
def test_what_is_not_gpt2_is_refused(exported, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        import_model(tmp_path)
    weights, config = load_file(exported / "model.safetensors"), json.loads((exported / "config.json").read_bytes())

    def attempt(changed_config=None, changed_weights=None):
        (tmp_path / "config.json").write_text(json.dumps({**config, **(changed_config or {})}))
        save_file(changed_weights or weights, tmp_path / "model.safetensors")
        return import_model(tmp_path)

    attempt()
    with pytest.raises(UserError, match="llama"):
        attempt({"model_type": "llama"})
    with pytest.raises(UserError, match="activation_function relu, n_inner 8"):
        attempt({"activation_function": "relu", "n_inner": 8})
    with pytest.raises(UserError, match=r"lacks the weight h\.1\.mlp\.c_fc\.weight"):
        attempt(changed_weights={k: v for k, v in weights.items() if k != "transformer.h.1.mlp.c_fc.weight"})
    with pytest.raises(UserError, match="head of its own"):
        attempt(changed_weights={**weights, "lm_head.weight": weights["transformer.wte.weight"] + 1})
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        import_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"pytorch_model\.bin cannot be read"):
        import_model(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        import_model(tmp_path)
