"""Export a run as a folder that `transformers` loads without kogpt. In: a run. Out: the folder.

It contains model.safetensors, config.json, generation_config.json, the tokenizer's files with a chat template, and
README.md (the model card); with `gguf`, also model-f16.gguf or model-q8_0.gguf and a Modelfile (kogpt.hub.gguf).
Everything specific to an architecture is in its adapter (kogpt.hub.adapters).

A text starts with [CLS] and ends with [SEP]; a model that was trained on conversations ends its answers with [END].
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save

from kogpt.checkpoint.choose import Wish
from kogpt.checkpoint.load import LoadedRun, load_for_inference
from kogpt.common.errors import UserError
from kogpt.common.files import atomic_folder
from kogpt.eval.run import open_corpus
from kogpt.eval.uncut import Uncut, both_ways, score_both
from kogpt.hub.adapters import adapter_for
from kogpt.hub.chat_template import chat_template, llama_chat_template
from kogpt.hub.gguf import Quantization, modelfile, write_gguf
from kogpt.hub.model_card import SAMPLE_TEXTS, model_card, plain_tokenizer_costs, plain_tokenizer_differs
from kogpt.hub.push import check_push, upload
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.hf import library_files
from kogpt.tokenizer.wordpiece import Tokenizer
from kogpt.tracking.run_file import read_run_file

log = logging.getLogger(__name__)

MEASURED_ARTICLES = 100
"""of the validation split; for a model of 124M parameters they take a quarter of an hour on 2 cores"""
UNASKED_ARTICLES = 20
"""the same if no corpus is named"""


def export_model(
    run_folder: str | Path,
    folder: str | Path,
    *,
    license: str | None = None,
    texts: Sequence[str] = SAMPLE_TEXTS,
    checkpoint: Wish = None,
    gguf: Quantization | None = None,
    push: str | None = None,
    corpus: str | Path | None = None,
) -> str | None:
    """Write a checkpoint of a run (kogpt.checkpoint.choose) or a step folder as a folder for `transformers`.

    `license` is the license of the weights, for the model card (for example cc-by-sa-4.0). The card compares the
    plain tokenizer with ours by what the model needs for either on validation articles of `corpus`, or of the run's own
    corpus if that is still there; otherwise on `texts`, by their tokens. `gguf` adds a file for llama.cpp, with weights
    in this precision. `push` is the name under which the folder is uploaded to the Hugging Face hub; its address is
    returned.
    """
    from transformers import GenerationConfig

    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder to export to.")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; remove it, or name a new folder to export to.")
    run = load_for_inference(Path(run_folder), checkpoint=checkpoint)
    codec = TextCodec(run.tokenizer_folder)
    shape, tokenizer = run.model.config, codec.tokenizer
    if push is not None:
        check_push(push, tokenizer.source, license)
    adapter = adapter_for(shape)
    if corpus is None:
        worth = _on_own_corpus(run, tokenizer)
    else:
        ways = both_ways(open_corpus(corpus, tokenizer, run_folder), tokenizer, MEASURED_ARTICLES)
        worth = score_both(run.model, *ways)
    chat = run.talks
    special = {
        "bos_token_id": tokenizer.cls_id,
        "eos_token_id": tokenizer.end_id if chat else tokenizer.sep_id,
        "pad_token_id": tokenizer.pad_id,
    }
    # Either end stops generation, whatever the model was asked.
    stops: dict[str, Any] = special | ({"eos_token_id": [tokenizer.end_id, tokenizer.sep_id]} if chat else {})
    generation = GenerationConfig(do_sample=True, temperature=0.8, top_k=0, **stops)
    contents = {path.name: path.read_bytes() for path in sorted(run.tokenizer_folder.iterdir()) if path.is_file()}
    contents |= library_files(tokenizer.vocab, tokenizer.spacing)  # those of the run may be from an earlier version
    # Other engines look up the first and last token of a text under these names.
    about = json.loads(contents["tokenizer_config.json"])
    end = "[END]" if chat else "[SEP]"
    about |= {"bos_token": "[CLS]", "eos_token": end, "model_max_length": shape.max_seq_len}
    if tokenizer.roles is not None:
        about["chat_template"] = chat_template(tokenizer.spacing)
    contents |= {
        "tokenizer_config.json": (json.dumps(about, indent=1) + "\n").encode(),
        "model.safetensors": save(adapter.export_weights(run.model.state_dict(), shape), {"format": "pt"}),
        "generation_config.json": generation.to_json_string().encode(),
        "config.json": (json.dumps(adapter.export_config(shape, special), indent=2) + "\n").encode(),
    }
    # Use a temporary name until it is complete, because an incomplete model might load and generate nonsense.
    with atomic_folder(folder) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        if gguf is not None:
            file, state = f"model-{gguf}.gguf", run.model.state_dict()
            template = None if tokenizer.roles is None else llama_chat_template()
            write_gguf(temporary / file, gguf, adapter, shape, state, tokenizer, special, template)
            (temporary / "Modelfile").write_text(modelfile(file, shape, chat=chat), encoding="utf-8")
        differs = plain_tokenizer_differs(temporary, codec, texts) if worth is None else plain_tokenizer_costs(worth)
        card = model_card(
            run, adapter.title, license or "unknown", differs, tokenizer.roles is not None, gguf is not None
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return None if push is None else upload(folder, push)


def _on_own_corpus(run: LoadedRun, tokenizer: Tokenizer) -> Uncut | None:
    """What raw text costs on the corpus of the run; None if it is no longer in its folder, or cannot be read raw."""
    run_folder = run.tokenizer_folder.parent
    folder = read_run_file(run_folder).get("corpus_folder")
    if folder is None:
        return None
    try:
        corpus = open_corpus(folder, tokenizer, run_folder)
        if corpus.fingerprint not in run.info.get("corpus", ""):
            return None  # another one, of which the run may have read the validation articles
        ways = both_ways(corpus, tokenizer, UNASKED_ARTICLES)
        log.info(f"comparing raw with analyzed text on {len(ways[0])} validation articles of {folder}, for the card")
        return score_both(run.model, *ways)
    except UserError:
        return None
