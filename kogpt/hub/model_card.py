"""The model card: README.md of an exported folder. In: a run. Out: Markdown."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from kogpt.checkpoint.load import LoadedRun
from kogpt.eval.report import with_error
from kogpt.eval.uncut import Uncut
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import open_tokenizer
from kogpt.tracking.run_file import read_run_file
from kogpt.tracking.tracker import read_metrics

_TRAINING = ("seed", "global_batch", "precision", "world_size", "device", "git_commit", "torch")
"""The fields of run.json that the card shows."""

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
"""Raw text (from the constitution of the Republic of Korea) on which the card compares tokens if there is no corpus."""


def model_card(
    run: LoadedRun, architecture: str, license: str, differs: str, chats: bool = False, gguf: bool = False
) -> str:
    """The card: what the model is, how it was trained, and how AutoTokenizer differs from the training.

    `chats`: the vocabulary has role tokens, so the folder has a chat template. `gguf`: it has a file for llama.cpp.
    """
    talks = run.talks
    analyzer = json.loads((run.tokenizer_folder / "kogpt.json").read_bytes())["analyzer"]["name"]
    restores = _RESTORES if open_tokenizer(run.tokenizer_folder).spacing == "original" else _LOSES
    shape = run.model.config
    numbers = {
        "parameters": f"{shape.parameter_count:,}",
        "layers, heads, width": f"{shape.n_layer}, {shape.n_head}, {shape.n_embd}",
        "context": f"{shape.max_seq_len} tokens",
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
tags: [kogpt, {shape.arch}]
---
# A Korean GPT trained from scratch with kogpt

{_ANSWERS if talks else _CONTINUES} It has the {architecture} architecture and loads with
`AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

| | |
|---|---|
{rows}

## License
The weights: {license}. The articles used for training have their own licenses. kogpt itself is GPL-3.0-or-later.

## Tokenizer
For training, the analyzer `{analyzer}` split the text before WordPiece. `AutoTokenizer` does not include the analyzer,
so it tokenizes raw text as kogpt does without one. {differs} {restores}
`kogpt generate` tokenizes prompts as in training. Every article starts with [CLS] and ends with [SEP], so start a
prompt with [CLS].
{_LLAMA_CPP if gguf else ""}{_chat(talks, analyzer) if chats else ""}"""


_RESTORES = "Decoding restores the text, in NFC and without control characters."
_LOSES = "Decoding does not restore all white space and rare characters of a text."
_CONTINUES = "This model continues Korean text."
_ANSWERS = "This model answers in Korean conversations."

_LLAMA_CPP = """
llama.cpp cuts the words of raw text by a rule of its own, so some of its tokens are neither those of the training nor
those of `AutoTokenizer`. It also takes token ids.
"""


def _chat(talks: bool, analyzer: str) -> str:
    untaught = "" if talks else "This model was not fine-tuned on conversations, so it does not answer questions. "
    uncut = "" if analyzer == "none" else f"It cannot call the analyzer `{analyzer}`, so messages become other tokens. "
    return f"""
## Chat
{untaught}`tokenizer.apply_chat_template(messages)` writes a conversation as
`[SYSTEM] ... [END] [USER] ... [END] [ASSISTANT] ... [END]`. The template marks the assistant's words and their [END]
with `{{% generation %}}`, for `return_assistant_tokens_mask` and TRL's `assistant_only_loss`. {uncut}
It neutralizes special tokens in messages: a literal `[END]` or `[ASSISTANT]` in a message stays text. Without the
template, `AutoTokenizer` reads them as special tokens, as every tokenizer of `transformers` does.
"""


def _training_numbers(run: Path, step: int) -> dict[str, str]:
    """What the run's files say about the training up to this step. The run may have continued since then."""
    numbers: dict[str, str] = {}
    content = read_run_file(run)
    numbers |= {key: str(content[key]) for key in _TRAINING if content.get(key) is not None}
    if (run / "metrics.jsonl").exists():
        for record in read_metrics(run / "metrics.jsonl"):
            if record["step"] == step and record["loss"] is not None:
                numbers |= {"tokens": f"{record['tokens']:,}", "training loss": f"{record['loss']:.4f} nats per token"}
            if record["step"] <= step and record["val_loss"] is not None:
                bits, loss = record["val_bits_per_char"], record["val_loss"]
                numbers["validation"] = (
                    f"{bits:.4f} bits per character, {loss:.4f} nats per token, at step {record['step']}"
                )
    return numbers


def plain_tokenizer_costs(worth: Uncut) -> str:
    """One sentence on how well the model predicts the text that AutoTokenizer reads, against that of the training."""
    uncut = with_error(worth.bits_per_char, worth.standard_error, 3)
    more = with_error(100 * worth.more, 100 * worth.more_standard_error, 1)
    return (
        f"On {worth.articles:,} held-out articles ({worth.chars:,} characters), the model needs {uncut} bits per "
        f"character for raw text through `AutoTokenizer`, and {worth.cut_bits_per_char:.3f} for analyzed text: "
        f"{more} % more."
    )


def plain_tokenizer_differs(folder: Path, codec: TextCodec, texts: Sequence[str]) -> str:
    """One sentence on how AutoTokenizer's tokens of raw text differ from those of the training."""
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(folder)
    pairs = [(codec.encode(text), plain.encode(text, add_special_tokens=False)) for text in texts]
    ours, theirs = (sum(map(len, ids)) for ids in zip(*pairs, strict=True))
    matched = sum(
        sum(block.size for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks())
        for a, b in pairs
    )
    equal = sum(a == b for a, b in pairs)
    measure = " Its cost in bits per character was not measured; `kogpt export RUN FOLDER --corpus CORPUS` measures it."
    return (
        f"For {len(pairs)} sentences of raw text it gives {theirs} tokens instead of {ours}; {equal} sentences are "
        f"identical, and it finds {matched / max(ours, 1):.0%} of the training's tokens."
        f"{measure if codec.tokenizer.spacing == 'original' else ''}"
    )
