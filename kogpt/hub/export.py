"""To and from `transformers`: a run becomes a GPT-2 folder that anything loads, and any GPT-2 folder becomes ours.

export: RUN -> folder with model.safetensors, config.json, generation_config.json, the tokenizer's files and
README.md (the model card), which `AutoModelForCausalLM` and `AutoTokenizer` load with no code of ours.
import: folder (config.json and *.safetensors or pytorch_model.bin) -> GPTConfig and GPT.state_dict().

transformers keeps the matrices of a block transposed (its Conv1D) and always has biases: a model without
them is exported with zeros. The tied head is stored once, as wte.
"""

import difflib
import json
import os
import pickle
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from kogpt.checkpoint.load import LoadedRun, load_for_inference
from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write, fsync_folder
from kogpt.model.gpt2 import GPTConfig
from kogpt.tokenizer.codec import TextCodec
from kogpt.tracking.metrics_file import read_metrics
from kogpt.train.memory import parameter_count

# (ours, theirs): the layers of a block, each with a weight and a bias.
_BLOCK_NAMES = (
    ("ln_1", "ln_1"),
    ("attn.qkv", "attn.c_attn"),
    ("attn.proj", "attn.c_proj"),
    ("ln_2", "ln_2"),
    ("mlp.fc", "mlp.c_fc"),
    ("mlp.proj", "mlp.c_proj"),
)

# Settings of transformers' GPT2Config that change the arithmetic, with the values that ours has.
_ARITHMETIC: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}

_TRAINING = ("seed", "global_batch", "precision", "world_size", "device", "git_commit", "torch")
"""What the card takes over from run.json (kogpt.train.run_metadata.about)."""

SAMPLE_TEXTS = (
    "대한민국은 민주공화국이다.",
    "대한민국의 주권은 국민에게 있고, 모든 권력은 국민으로부터 나온다.",
    "모든 국민은 인간으로서의 존엄과 가치를 가지며, 행복을 추구할 권리를 가진다.",
    "모든 국민은 법 앞에 평등하다.",
    "누구든지 성별·종교 또는 사회적 신분에 의하여 차별을 받지 아니한다.",
    "모든 국민은 신체의 자유를 가진다.",
    "모든 국민은 학문과 예술의 자유를 가진다.",
    "국가는 건전한 소비행위를 계도하고 생산품의 품질향상을 촉구하기 위한 소비자보호운동을 보장한다.",
)
"""Raw text (from the constitution of the Republic of Korea) on which the card measures the plain tokenizer."""


def to_transformers(state: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """GPT.state_dict() -> GPT2LMHeadModel's, without the tied lm_head.weight."""
    out = {f"transformer.{name}": state[name] for name in ("wte.weight", "wpe.weight", "ln_f.weight")}
    out["transformer.ln_f.bias"] = state.get("ln_f.bias", torch.zeros(config.n_embd))
    for layer in range(config.n_layer):
        for ours, theirs in _BLOCK_NAMES:
            weight = state[f"blocks.{layer}.{ours}.weight"]
            bias = state.get(f"blocks.{layer}.{ours}.bias", torch.zeros(weight.size(0)))
            out[f"transformer.h.{layer}.{theirs}.weight"] = weight.T if weight.dim() == 2 else weight
            out[f"transformer.h.{layer}.{theirs}.bias"] = bias
    return {name: value.detach().cpu().float().contiguous() for name, value in out.items()}


def from_transformers(state: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """GPT2LMHeadModel's or GPT2Model's state -> GPT.state_dict() in float32; KeyError if a weight is missing."""
    state = {name.removeprefix("transformer."): value for name, value in state.items()}
    out = {name: state[name] for name in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")}
    for layer in range(n_layer):
        for ours, theirs in _BLOCK_NAMES:
            weight = state[f"h.{layer}.{theirs}.weight"]
            out[f"blocks.{layer}.{ours}.weight"] = weight.T if weight.dim() == 2 else weight
            out[f"blocks.{layer}.{ours}.bias"] = state[f"h.{layer}.{theirs}.bias"]
    return {name: value.float().contiguous() for name, value in out.items()}


def export_model(
    run_folder: str | Path,
    folder: str | Path,
    *,
    license: str = "unknown",
    texts: Sequence[str] = SAMPLE_TEXTS,
) -> None:
    """Write a run's newest good checkpoint (or a step folder of it) as a folder for `transformers`.

    `license` is that of the weights, for the card (an identifier such as cc-by-sa-4.0); on `texts` the card
    measures what the plain tokenizer does differently without the analyzer.
    """
    from transformers import GenerationConfig, GPT2Config

    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder to export to.")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds files already; remove it, or name a new folder to export to.")
    run = load_for_inference(Path(run_folder))
    codec = TextCodec(run.tokenizer_folder)
    shape, tokenizer = run.model.config, codec.tokenizer
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.cls_id,
        "eos_token_id": tokenizer.sep_id,
        "pad_token_id": tokenizer.pad_id,
    }
    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.max_seq_len,
        n_embd=shape.n_embd,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        attn_pdrop=shape.dropout,
        embd_pdrop=shape.dropout,
        resid_pdrop=shape.dropout,
        architectures=["GPT2LMHeadModel"],
        **special,
    )
    generation = GenerationConfig(do_sample=True, temperature=0.8, top_k=0, **special)
    contents = {path.name: path.read_bytes() for path in sorted(run.tokenizer_folder.iterdir()) if path.is_file()}
    # Other engines ask for the tokens that begin and end a text under these names.
    about = json.loads(contents["tokenizer_config.json"])
    about |= {"bos_token": "[CLS]", "eos_token": "[SEP]", "model_max_length": shape.max_seq_len}
    contents |= {
        "tokenizer_config.json": (json.dumps(about, indent=1) + "\n").encode(),
        "model.safetensors": save(to_transformers(run.model.state_dict(), shape), {"format": "pt"}),
        "generation_config.json": generation.to_json_string().encode(),
        "config.json": config.to_json_string().encode(),
    }
    # Under another name until it is whole: a part of it might load, and write nonsense.
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in contents.items():
        _write(temporary / name, content)
    differs = _plain_tokenizer_differs(temporary, codec, texts)
    _write(temporary / "README.md", model_card(run, license, differs).encode())
    os.replace(temporary, folder)
    fsync_folder(folder.parent)


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def _plain_tokenizer_differs(folder: Path, codec: TextCodec, texts: Sequence[str]) -> str:
    """One sentence: how far AutoTokenizer's ids of raw text are from those that the model was trained on."""
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(folder)
    pairs = [(codec.encode(text), plain.encode(text, add_special_tokens=False)) for text in texts]
    ours, theirs = (sum(map(len, ids)) for ids in zip(*pairs, strict=True))
    matched = sum(
        sum(block.size for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks())
        for a, b in pairs
    )
    equal = sum(a == b for a, b in pairs)
    return (
        f"On {len(pairs)} sentences of raw text it gives {theirs} ids where training had {ours}; "
        f"{equal} sentences are cut alike, and {matched / max(ours, 1):.0%} of the training ids are found."
    )


def model_card(run: LoadedRun, license: str, differs: str) -> str:
    """README.md of the exported folder: what it is, its numbers, and what a plain tokenizer cannot do."""
    analyzer = json.loads((run.tokenizer_folder / "kogpt.json").read_bytes())["analyzer"]["name"]
    shape = run.model.config
    numbers = {
        "parameters": f"{parameter_count(shape):,}",
        "layers, heads, width": f"{shape.n_layer}, {shape.n_head}, {shape.n_embd}",
        "context": f"{shape.max_seq_len} ids",
        "vocabulary": f"{shape.vocab_size:,}",
    }
    numbers |= {key: str(value) for key, value in run.info.items() if isinstance(value, str | int | float)}
    numbers |= _training_numbers(run.tokenizer_folder.parent, run.info["step"])
    rows = "\n".join(f"| {key} | {value} |" for key, value in numbers.items())
    return f"""---
language: ko
license: {license}
library_name: transformers
pipeline_tag: text-generation
tags: [kogpt, gpt2]
---
# A Korean GPT trained from scratch with kogpt

GPT-2 architecture. Loads with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

| | |
|---|---|
{rows}

## License
Of the weights: {license}. The articles that they were trained on have their own; kogpt itself is GPL-3.0-or-later.

## Tokenizer
In training the text was cut by the analyzer `{analyzer}` before WordPiece. `AutoTokenizer` has no analyzer: it gives
the same ids for text that was cut before, and others for raw text. {differs}
Prompts that are to be cut as in training go through `kogpt generate`. Each article began with [CLS] and ended with
[SEP]: begin a prompt with [CLS], too.
"""


def _training_numbers(run: Path, step: int) -> dict[str, str]:
    """What the run's files say of the training up to this step; the run itself may be further."""
    numbers: dict[str, str] = {}
    if (run / "run.json").exists():
        content = json.loads((run / "run.json").read_bytes())
        numbers |= {key: str(content[key]) for key in _TRAINING if content.get(key) is not None}
    if (run / "metrics.jsonl").exists():
        for record in read_metrics(run / "metrics.jsonl"):
            if record["step"] == step and record["loss"] is not None:
                numbers |= {"tokens": f"{record['tokens']:,}", "training loss": f"{record['loss']:.4f} nats an id"}
            if record["step"] <= step and record["val_loss"] is not None:
                bits, loss = record["val_bits_per_char"], record["val_loss"]
                numbers["validation"] = (
                    f"{bits:.4f} bits per character, {loss:.4f} nats an id, at step {record['step']}"
                )
    return numbers


def import_model(folder: str | Path) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Shape and weights of any GPT-2-architecture checkpoint on disk, ready for GPT(config).load_state_dict.

    What computes otherwise than GPT-2 is refused. Dropout is left at 0: it is a setting of the training to come.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json; name the folder of a GPT-2 checkpoint.")
    config = json.loads((folder / "config.json").read_bytes())
    if config.get("model_type") != "gpt2":
        raise UserError(f"{folder}/config.json is of type {config.get('model_type')}; only gpt2 can be imported.")
    odd = [
        f"{key} {config[key]}"
        for key, good in _ARITHMETIC.items()
        if config.get(key) is not None and config[key] not in good
    ]
    if config.get("n_inner") not in (None, 4 * config["n_embd"]):
        odd.append(f"n_inner {config['n_inner']}")
    if odd:
        raise UserError(
            f"{folder}/config.json has {', '.join(odd)}, which plain GPT-2 does not; it cannot be imported."
        )
    state = _read_weights(folder)
    head = state.pop("lm_head.weight", None)
    try:
        weights = from_transformers(state, config["n_layer"])
    except KeyError as missing:
        raise UserError(f"{folder} lacks the weight {missing.args[0]}; is its download complete?") from None
    if head is not None and not torch.equal(head.float(), weights["wte.weight"]):
        raise UserError(f"{folder} has a head of its own; only models whose head is tied to wte can be imported.")
    shape = GPTConfig(
        vocab_size=weights["wte.weight"].size(0),
        max_seq_len=weights["wpe.weight"].size(0),
        n_layer=config["n_layer"],
        n_head=config["n_head"],
        n_embd=config["n_embd"],
    )
    return shape, weights


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, whole or in shards; without the mask buffers that old versions stored."""
    state: dict[str, Tensor] = {}
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UserError(f"{folder} has no model.safetensors and no pytorch_model.bin; is its download complete?")
    for file in files:
        try:
            state |= (
                load_file(file)
                if file.suffix == ".safetensors"
                else torch.load(file, map_location="cpu", weights_only=True)
            )
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise UserError(f"{file} cannot be read ({type(error).__name__}); is its download complete?") from None
    return {name: value for name, value in state.items() if not re.search(r"\.attn\.(masked_)?bias$", name)}
