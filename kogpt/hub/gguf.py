"""A model as a GGUF file for llama.cpp and the programs built on it, and a Modelfile for Ollama.

In: a model's configuration and weights, its adapter, its tokenizer. Out: one file, in f16 or q8_0. Vectors and learned
positions stay float32, as do the scales of q8_0, which has 8 bits per weight in blocks of 32 (0.3 % off at most).

llama.cpp's own WordPiece decomposes Hangul and has no bytes, so the vocabulary is written as one of its kind "llama"
(SentencePiece): a plain token is written with the mark of a space before it, `나라` as `▁나라`, and a continuation
without, `##라` as `라`. Token ids do not change. It decodes them as we do, except that it writes a space before a plain
token also at the start, after a line feed, and after a space token. It has no analyzer, and reads raw text into other
tokens than those of the training, as any program without kogpt does.
"""

import re
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from kogpt.hub.adapters import Adapter
from kogpt.model.config import ModelConfig
from kogpt.tokenizer.wordpiece import StreamDecoder, Tokenizer

Quantization = Literal["f16", "q8_0"]
_BLOCK = 32
"""Weights per scale in q8_0. A row of another length stays in f16."""


def write_gguf(
    path: Path,
    quantization: Quantization,
    adapter: Adapter,
    config: ModelConfig,
    state: dict[str, Tensor],
    tokenizer: Tokenizer,
    special_tokens: dict[str, int],
    chat_template: str | None = None,
) -> None:
    """Write the file. `special_tokens` are bos_token_id, eos_token_id, and pad_token_id."""
    import gguf

    arch = adapter.model_type
    writer = gguf.GGUFWriter(path, arch)
    kinds = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
    writer.add_file_type(kinds[quantization])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in adapter.gguf_fields(config).items():
        if isinstance(value, int):
            writer.add_uint32(f"{arch}.{key}", value)
        else:
            writer.add_float32(f"{arch}.{key}", value)
    _add_tokenizer(writer, tokenizer, special_tokens, chat_template)
    names = gguf.get_tensor_name_map(
        next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == arch), config.n_layer
    )
    for name, weight in adapter.gguf_weights(state, config).items():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        wanted = gguf.GGMLQuantizationType.F32
        if weight.dim() == 2 and theirs != "position_embd.weight":
            q8 = quantization == "q8_0" and weight.size(1) % _BLOCK == 0
            wanted = gguf.GGMLQuantizationType.Q8_0 if q8 else gguf.GGMLQuantizationType.F16
        writer.add_tensor(theirs, gguf.quantize(weight.numpy(), wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(
    writer: Any, tokenizer: Tokenizer, special_tokens: dict[str, int], chat_template: str | None
) -> None:
    import gguf

    texts, kinds = token_table(tokenizer)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_types([gguf.TokenType[kind] for kind in kinds])
    # The merge with the highest score comes first: of tokens that were learned early, and so are frequent.
    writer.add_token_scores([-float(i) for i in range(len(texts))])
    writer.add_bos_token_id(special_tokens["bos_token_id"])
    writer.add_eos_token_id(special_tokens["eos_token_id"])
    if special_tokens["eos_token_id"] != tokenizer.sep_id:
        writer.add_eom_token_id(tokenizer.sep_id)  # generation stops there as well
    writer.add_pad_token_id(special_tokens["pad_token_id"])
    writer.add_unk_token_id(tokenizer.unk_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def token_table(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """(text, type) of each token as llama.cpp stores them; the types are names of `gguf.TokenType`.

    No text occurs twice, because llama.cpp refuses that: the later one of two gets its own name from vocab.txt.
    """
    decoder = StreamDecoder(tokenizer)
    texts: list[str] = []
    kinds: list[str] = []
    seen: set[str] = set()
    for i, piece in enumerate(tokenizer.vocab):
        decoder.push(i)  # so that what follows stands in the middle of a text
        decoder.flush()
        text, kind = decoder.push(i), "NORMAL"
        decoder.flush()
        if tokenizer.spacing == "original" and re.fullmatch("<0x[0-9A-F]{2}>", piece):
            text, kind = piece, "BYTE"
        elif i == tokenizer.unk_id:
            text, kind = piece, "UNKNOWN"
        elif not text:
            text, kind = piece, "CONTROL"
        elif "▁" in text:
            kind = "USER_DEFINED"  # its text is taken as it is
        else:
            text = text.replace(" ", "▁")
        text = piece if text in seen else text
        while text in seen:
            text += "#"
        seen.add(text)
        texts.append(text)
        kinds.append(kind)
    return texts, kinds


def modelfile(file: str, config: ModelConfig, *, chat: bool) -> str:
    """The Modelfile beside the GGUF file `file`: how Ollama prompts the model, and samples as `kogpt generate` does."""
    if chat:
        turn = '{{ if eq .Role "system" }}[SYSTEM]{{ else if eq .Role "user" }}[USER]{{ else }}[ASSISTANT]{{ end }}'
        template, stop = f"{{{{ range .Messages }}}}{turn}{{{{ .Content }}}}[END]{{{{ end }}}}[ASSISTANT]", "[END]"
    else:
        template, stop = "{{ .Prompt }}", "[SEP]"
    settings = {
        "num_ctx": config.max_seq_len,
        "temperature": 0.8,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "stop": f'"{stop}"',
    }
    parameters = "".join(f"PARAMETER {name} {value}\n" for name, value in settings.items())
    return f'FROM ./{file}\nTEMPLATE """{template}"""\n{parameters}'
