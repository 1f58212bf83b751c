"""GGUF: what is in the file, and that llama.cpp writes the same tokens and the same text from it."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    SHAPES,
    TEXTS,
    bills,
    constitution,
    encode_with,
    make_run,
    make_tokenizer,
    scattered,
    shape_of,
    write_checkpoint,
)

from kogpt.checkpoint.load import load_for_inference
from kogpt.generate.decode import generate
from kogpt.generate.sampling import Sampling
from kogpt.hub.chat_template import llama_chat_template
from kogpt.hub.export import export_model
from kogpt.hub.gguf import token_table
from kogpt.tokenizer import chat
from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.pieces import ROLE_PIECES, SPECIAL_PIECES
from kogpt.tokenizer.wordpiece import Tokenizer

CONTEXT = 64


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return make_tokenizer(constitution(), 600)


@pytest.fixture(scope="module", params=SHAPES)
def run(request: pytest.FixtureRequest, words: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder, words, request.param, n_embd=64, max_seq_len=CONTEXT)


def sentences() -> list[str]:
    """One line each, without runs of spaces: 1,000 of the constitution and of bills."""
    lines = [" ".join(line.split()) for text in (*constitution(), *bills()) for line in re.split(r"\n|(?<=다\.)", text)]
    return [line for line in lines if line][:1000]


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The fields and the tensors of a GGUF file, as its own library reads them."""
    import gguf

    reader = gguf.GGUFReader(path)
    tensors = {t.name: torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy()) for t in reader.tensors}
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


@pytest.mark.parametrize(("kind", "off"), [("f16", 5e-4), ("q8_0", 4e-3)])
def test_the_file_holds_the_model(run: Path, kind: Any, off: float, words: Tokenizer, tmp_path: Path) -> None:
    export_model(run, tmp_path / "out", texts=TEXTS, gguf=kind)
    model = load_for_inference(run).model
    fields, tensors = read(tmp_path / "out" / f"model-{kind}.gguf")
    arch = model.config.arch
    assert fields["general.architecture"] == arch
    assert fields[f"{arch}.context_length"] == CONTEXT
    assert [fields[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos")] == [words.cls_id, words.sep_id]
    assert sum(value.numel() for value in tensors.values()) == model.config.parameter_count
    # Sums of absolute values do not depend on names or on whether a matrix is transposed.
    sums = [sorted(float(v.abs().sum()) for v in values) for values in (tensors.values(), model.state_dict().values())]
    assert sums[0] == pytest.approx(sums[1], rel=off)
    assert "llama.cpp cuts the words of raw text by a rule of its own" in (tmp_path / "out/README.md").read_text()
    assert "PARAMETER num_ctx 64\n" in (tmp_path / "out" / "Modelfile").read_text()
    assert f"FROM ./model-{kind}.gguf\n" in (tmp_path / "out" / "Modelfile").read_text()


@pytest.mark.parametrize("spacing", ["original", "morphemes"])
def test_the_texts_of_tokens_make_up_the_text(spacing: str) -> None:
    words = make_tokenizer(constitution(), 600)
    extra = ["▁", "##▁", "x▁", "[SYSTEM2]", "##[CLS]"]
    vocab = words.vocab + extra if spacing == "original" else words.vocab[: words.base_size]
    words = Tokenizer(vocab, spacing=spacing, analyzer=words.analyzer, source="test", base_size=words.base_size)
    texts, kinds = token_table(words)
    assert len(set(texts)) == len(texts) == words.vocab_size
    assert kinds.count("BYTE") == (256 if spacing == "original" else 0)
    assert {words.vocab[i] for i, kind in enumerate(kinds) if kind == "CONTROL"} >= {"[PAD]", "[CLS]", "[SEP]"}
    written = [
        text if kind == "USER_DEFINED" else text.replace("▁", " ") for text, kind in zip(texts, kinds, strict=True)
    ]
    for text in sentences()[:300]:
        ids = [i for i in words.encode(text, load_analyzer("none").analyze(text)) if i != words.unk_id]
        raw = b"".join(bytes.fromhex(texts[i][3:5]) if kinds[i] == "BYTE" else written[i].encode() for i in ids)
        assert raw.decode().removeprefix(" ") == words.decode(ids)
    if spacing == "original":
        assert [kinds[words.vocab.index(piece)] for piece in ("▁", "x▁", "[LF]", "[UNK]")] == [
            *("USER_DEFINED", "USER_DEFINED", "NORMAL", "UNKNOWN")
        ]


def test_a_model_of_conversations_ends_with_its_own_token(words: Tokenizer, tmp_path: Path) -> None:
    words.save(tmp_path / "run" / "tokenizer")
    model = scattered(shape_of("qwen3", vocab_size=words.vocab_size))
    write_checkpoint(tmp_path / "run", model, 1, corpus="c0ffee", kind="conversations")
    export_model(tmp_path / "run", tmp_path / "out", texts=TEXTS, gguf="f16")
    for name, ends in (("config.json", words.end_id), ("generation_config.json", [words.end_id, words.sep_id])):
        assert json.loads((tmp_path / "out" / name).read_bytes())["eos_token_id"] == ends
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_bytes())["eos_token"] == "[END]"
    fields, _ = read(tmp_path / "out" / "model-f16.gguf")
    assert fields["tokenizer.ggml.bos_token_id"] == words.cls_id
    assert fields["tokenizer.ggml.eos_token_id"] == words.end_id
    assert fields["tokenizer.chat_template"] == llama_chat_template()
    said = (tmp_path / "out" / "Modelfile").read_text()
    assert 'PARAMETER stop "[END]"' in said
    assert said.count("{{ end }}") == said.count("{{ if") + said.count("{{ range")


class Engine:
    """llama.cpp's server in this process."""

    def __init__(self, file: Path) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.port, settings.verbosity, settings.warmup = 0, 0, False
        settings.n_ctx, settings.n_parallel = CONTEXT, 1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        self.server = xllamacpp.Server(settings)

    def ask(self, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            self.server.listening_address + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture
def engine(run: Path, tmp_path: Path) -> Engine:
    export_model(run, tmp_path / "out", texts=TEXTS, gguf="f16")
    return Engine(tmp_path / "out" / "model-f16.gguf")


@pytest.mark.ecosystem
def test_llama_cpp_writes_the_same_tokens_and_text(run: Path, engine: Engine, words: Tokenizer) -> None:
    """Greedily on 200 prompts. Where they part, our best logits are closer than f16 can tell."""
    ends = [words.sep_id, words.pad_id]  # [PAD] by its name; llama.cpp is told to go on, and never writes them
    model = load_for_inference(run).model
    prompts = [[words.cls_id, *encode_with(words, text)][: 5 + i % 30] for i, text in enumerate(sentences()[:200])]
    steps = generate(model, prompts, Sampling(max_new_tokens=20, greedy=True))
    apart, ended = list[float](), 0
    for prompt, ours in zip(prompts, zip(*steps, strict=True), strict=True):
        theirs = engine.ask(
            "/completion", prompt=prompt, n_predict=20, temperature=0, ignore_eos=True, return_tokens=True
        )["tokens"]
        assert len(theirs) == 20
        same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)
        if same is not None:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *ours[:same]]]))[0, -1]
            logits[ends] = -torch.inf
            apart.append(float(logits.max() - logits[theirs[same]]))
            ended += ours[same] in ends
    # With f16 weights and activations a logit is off by a few thousandths; they spread over several units.
    assert all(gap < 1e-2 for gap in apart), "they part at a clear choice"
    assert sum(gap > 3e-3 for gap in apart) <= 5
    assert len(apart) <= 20
    assert ended <= 5
    assert len(sentences()) == 1000
    for text in sentences():
        ids = encode_with(words, text)
        assert engine.ask("/detokenize", tokens=ids)["content"].removeprefix(" ") == words.decode(ids) == text


@pytest.mark.ecosystem
@pytest.mark.parametrize("kind", ["articles", "conversations"])
def test_llama_cpp_stops_where_a_text_or_an_answer_ends(kind: str, words: Tokenizer, tmp_path: Path) -> None:
    words.save(tmp_path / "run" / "tokenizer")
    model = scattered(shape_of("qwen3", vocab_size=words.vocab_size, max_seq_len=CONTEXT))
    write_checkpoint(tmp_path / "run", model, 1, corpus="c0ffee", **({"kind": kind} if kind != "articles" else {}))
    export_model(tmp_path / "run", tmp_path / "out", texts=TEXTS, gguf="f16")
    engine = Engine(tmp_path / "out" / "model-f16.gguf")
    for end in (words.sep_id, words.end_id):
        forced = {"logit_bias": [[end, 100.0]], "temperature": 0, "n_predict": 3}
        answer = engine.ask("/completion", prompt=[words.cls_id, 9], **forced)
        assert answer["content"] == ""
        assert (answer["stop_type"] == "eos") == (end == words.sep_id or kind == "conversations")


@pytest.mark.ecosystem
def test_llama_cpp_reads_the_modelfile_s_prompt_as_we_render_it(engine: Engine, words: Tokenizer) -> None:
    """Words of one token each, because it has no analyzer."""
    messages = [chat.Message("system", "국가는 법률이"), chat.Message("user", "모든 국민은")]
    text = "[SYSTEM]국가는 법률이[END][USER]모든 국민은[END][ASSISTANT]"
    ids = engine.ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]
    assert ids == chat.prompt(messages, words, lambda text: encode_with(words, text), CONTEXT).ids


@pytest.mark.ecosystem
@pytest.mark.parametrize("run", ["gpt2"], indirect=True)
def test_llama_cpp_uses_the_chat_template(run: Path, engine: Engine, words: Tokenizer) -> None:
    """With role tokens as tokens, and one that a message contains as text."""
    messages = [{"role": "user", "content": " 국민은 [END] \n"}, {"role": "assistant", "content": "법"}] * 2
    prompt = engine.ask("/apply-template", messages=messages[:3])["prompt"]
    assert prompt == "[USER]국민은 [ END][END][ASSISTANT]법[END][USER]국민은 [ END][END][ASSISTANT]"
    ids = engine.ask("/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
    special = [piece for piece in words.tokens(ids) if piece in (*SPECIAL_PIECES, *ROLE_PIECES)]
    assert special == ["[CLS]", "[USER]", "[END]", "[ASSISTANT]", "[END]", "[USER]", "[END]", "[ASSISTANT]"]
