"""Numbers that compare across tokenizers: bits per character of text, accuracy on multiple choice.

Bits per character: every id of an article ([SEP] included) is predicted once, by sliding windows with at least
max_seq_len - stride ids of context (kogpt.data.windows.eval_windows); the bits are summed and divided by the
characters of the normalised text, spaces and line feeds counted. Cost: max_seq_len / stride passes over the text.

Multiple choice (KoBEST: COPA, HellaSwag, BoolQ): each choice is scored by its log-likelihood after the prompt,
divided by its length in characters (not ids: analyzers differ in how many they make), which is what
lm-eval calls acc_norm. Prompt and choice are encoded apart and joined, so that all choices of an item follow
the very same ids; in a text of spacing "original" that reads as one space between them. Few-shot: solved examples
from the other items of the same task, drawn by (seed, item), stand before the prompt. What does not fit into
max_seq_len is cut off on the left. The standard error is sqrt(p (1 - p) / (n - 1)).
"""

import gzip
import json
import math
import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from kogpt.checkpoint.load import load_for_inference
from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.windows import eval_windows
from kogpt.eval import bits
from kogpt.model.gpt2 import GPT, IGNORED
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.normalize import decode, normalize

_ROWS = 16
"""Rows per forward pass; they are sorted by length, so that little of a batch is padding."""

_CONNECTORS = {"원인": "왜냐하면", "결과": "그래서"}


@dataclass(frozen=True)
class BitsPerChar:
    """`nats` are the articles' totals, in their order, for paired comparisons."""

    bits_per_char: float
    loss: float
    articles: int
    chars: int
    targets: int
    nats: list[float]


@dataclass(frozen=True)
class Accuracy:
    """Share of items answered as labelled, its standard error, and what guessing gets."""

    accuracy: float
    standard_error: float
    chance: float
    items: int


@dataclass(frozen=True)
class Item:
    """A multiple-choice question; `label` is the number of the right choice, from 0."""

    task: str
    prompt: str
    choices: tuple[str, ...]
    label: int


@torch.no_grad()
def sequence_nats(model: GPT, rows: Sequence[tuple[Sequence[int] | np.ndarray, int]]) -> np.ndarray:
    """Total surprise [n] float64 of each row (ids, first): of its targets number `first` on (target j is id j + 1).

    Rows have at most max_seq_len + 1 ids.
    """
    device = model.wpe.weight.device
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
    nats = np.zeros(len(rows))
    for begin in range(0, len(order), _ROWS):
        batch = order[begin : begin + _ROWS]
        longest = len(rows[batch[0]][0]) - 1
        if longest < 1:
            break  # rows of one id: nothing is predicted
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        targets = np.full_like(ids, IGNORED)
        for row, i in enumerate(batch):
            sequence, first = rows[i]
            count = len(sequence) - 1
            ids[row, :count] = sequence[:-1]
            targets[row, first:count] = sequence[first + 1 :]
        losses = model.token_losses(torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device))
        nats[batch] = losses.double().sum(1).cpu().numpy()
    return nats


def bits_per_char(
    model: GPT, articles: Iterable[tuple[Sequence[int] | np.ndarray, int]], *, stride: int | None = None
) -> BitsPerChar:
    """Articles are (ids [CLS] .. [SEP], characters of the text); `stride` is max_seq_len / 2 unless given."""
    max_seq_len = model.config.max_seq_len
    rows: list[tuple[Sequence[int] | np.ndarray, int]] = []
    owners: list[int] = []
    chars = targets = number = 0
    for ids, length in articles:
        for window in eval_windows(len(ids), max_seq_len, stride or max(1, max_seq_len // 2)):
            rows.append((ids[window.start : window.start + window.length], window.score_from))
            owners.append(number)
        chars, targets, number = chars + length, targets + len(ids) - 1, number + 1
    if not chars:
        raise UserError("there is no text to evaluate on; give a corpus with a val split or a folder of texts.")
    nats = np.bincount(owners, sequence_nats(model, rows), minlength=number)
    total = float(nats.sum())
    return BitsPerChar(bits.per_char(total, chars), total / targets, number, chars, targets, nats.tolist())


def corpus_articles(corpus: TokenCorpus, split: str = "val") -> list[tuple[np.ndarray, int]]:
    """The articles of a split as `bits_per_char` takes them."""
    chars = corpus.articles["chars"].to_numpy()
    return [(corpus.article(int(i)), int(chars[i])) for i in corpus.split(split)]


def encoded_articles(codec: TextCodec, texts: Iterable[str]) -> list[tuple[list[int], int]]:
    """Raw texts as `bits_per_char` takes them."""
    sep, cls = codec.tokenizer.sep_id, codec.tokenizer.cls_id
    normal = (normalize(text)[0] for text in texts)
    return [([cls, *codec.encode(text), sep], len(text)) for text in normal if text]


def read_texts(path: str | Path) -> list[str]:
    """The texts below a folder or in a file: *.txt (one text each), *.jsonl and *.jsonl.gz (`text` or `passage`).

    The encoding is UTF-8 or cp949, as for preprocessing.
    """
    path = Path(path)
    texts: list[str] = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.suffix == ".txt":
            texts.append(_read(file))
        elif file.name.endswith((".jsonl", ".jsonl.gz")):
            for number, record in _json_lines(file):
                text = record.get("text", record.get("passage"))
                if not isinstance(text, str):
                    raise UserError(f"{file} line {number} has neither `text` nor `passage`; give one of them.")
                texts.append(text)
    if not texts:
        raise UserError(f"{path} holds no texts; give a folder with *.txt, *.jsonl or *.jsonl.gz files.")
    return texts


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
        return decode(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a text in UTF-8 or cp949, whole.") from None


def _json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of a JSON lines file, gzipped or not."""
    records = []
    for number, line in enumerate(_read(path).split("\n"), 1):  # str.splitlines ends lines inside of texts, too
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if not isinstance(record, dict):
            raise UserError(f"{path} line {number} is not a JSON object; mend or remove it.")
        records.append((number, record))
    return records


def read_items(path: str | Path) -> list[Item]:
    """Multiple-choice items from JSON lines of {task, context, question, choices, label}."""
    items = []
    for number, record in _json_lines(Path(path)):
        try:
            task, choices, label = record["task"], tuple(record["choices"]), record["label"]
            prompt = _prompt(task, record["context"], record.get("question", ""))
            if not 0 <= label < len(choices) or not all(choices):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path} line {number} is no item; it needs task, context, choices and a label that names one of them."
            ) from None
        items.append(Item(task, prompt, choices, label))
    if not items:
        raise UserError(f"{path} holds no items; give JSON lines of multiple-choice questions.")
    return items


def _prompt(task: str, context: str, question: str) -> str:
    """What stands before the choice, in the words of lm-eval's KoBEST tasks."""
    if task == "copa":
        return f"{context} {_CONNECTORS[question]}"
    if task == "boolq":
        return f"{context} 질문: {question} 답변:"
    return f"{context} {question}".strip()


def multiple_choice(
    model: GPT, codec: TextCodec, items: Sequence[Item], *, shots: int = 0, seed: int = 0
) -> dict[str, Accuracy]:
    """Accuracy by task."""
    by_task = _by_task(items, shots)
    encode = _remembering(codec.encode)
    return {task: _accuracy(own, _predictions(model, codec, encode, own, shots, seed)) for task, own in by_task.items()}


def _by_task(items: Sequence[Item], shots: int) -> dict[str, list[Item]]:
    """The items of each task; `UserError` where they are too few for so many examples."""
    by_task: dict[str, list[Item]] = {}
    for item in items:
        by_task.setdefault(item.task, []).append(item)
    for task, own in by_task.items():
        if shots >= len(own):
            raise UserError(f"--shots {shots} needs more than {shots} items of {task}; there are {len(own)}.")
    return by_task


def _remembering(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """The analyzer sees each text once, however many items have it among their examples."""
    known: dict[str, list[int]] = {}
    return lambda text: known[text] if text in known else known.setdefault(text, encode(text))


def _predictions(
    model: GPT,
    codec: TextCodec,
    encode: Callable[[str], list[int]],
    items: Sequence[Item],
    shots: int,
    seed: int,
) -> list[int]:
    limit = model.config.max_seq_len + 1
    between = encode("\n\n")
    rows: list[tuple[Sequence[int], int]] = []
    for number, item in enumerate(items):
        others = [i for i in range(len(items)) if i != number]
        prompt = [codec.tokenizer.cls_id]
        for i in random.Random(f"{seed} {number}").sample(others, shots):
            example = items[i]
            prompt += encode(example.prompt) + encode(example.choices[example.label]) + between
        prompt += encode(item.prompt)
        for choice in item.choices:
            end = encode(choice)
            kept = (prompt + end)[-limit:]
            rows.append((kept, max(len(kept) - len(end) - 1, 0)))
    nats = iter(sequence_nats(model, rows))
    return [min(range(len(i.choices)), key=[next(nats) / len(c) for c in i.choices].__getitem__) for i in items]


def _accuracy(items: Sequence[Item], predictions: Sequence[int]) -> Accuracy:
    count = len(items)
    share = sum(p == item.label for p, item in zip(predictions, items, strict=True)) / count
    error = math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else math.nan
    return Accuracy(share, error, sum(1 / len(item.choices) for item in items) / count, count)


def evaluate_run(
    run_folder: str | Path,
    *,
    corpus: str | Path | None = None,
    texts: str | Path | None = None,
    choices: str | Path | None = None,
    shots: Sequence[int] = (0,),
    stride: int | None = None,
    limit: int | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """All that is asked for, as one object that JSON can hold.

    `corpus`: bits per character of its val split; `texts`: of a folder or file (see `read_texts`); `choices`: a file
    for `read_items`, at each number of `shots`. `limit` takes the first articles, and the first items of each task.
    """
    if corpus is None and texts is None and choices is None:
        raise UserError("nothing to evaluate on; give --corpus, --texts or --choices.")
    items: list[Item] = []
    if choices is not None:  # read and checked first: a mistake must not cost what was scored before it
        items = [item for own in _by_task(read_items(choices), 0).values() for item in own[:limit]]
        _by_task(items, max(shots, default=0))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    run = load_for_inference(Path(run_folder), device)
    codec = TextCodec(run.tokenizer_folder)
    result: dict[str, Any] = {"run": str(run.tokenizer_folder.parent), "step": run.info.get("step")}
    measured: dict[str, list[tuple[Any, int]]] = {}
    if corpus is not None:
        opened = TokenCorpus.open(corpus)
        if opened.manifest["tokenizer"]["sha256"] != codec.tokenizer.sha256:
            raise UserError(f"{corpus} has another tokenizer than {run_folder}; give the corpus's articles as --texts.")
        measured[str(corpus)] = list(corpus_articles(opened))
    if texts is not None:
        measured[str(texts)] = list(encoded_articles(codec, read_texts(texts)[:limit]))
    for name, articles in measured.items():
        scored = asdict(bits_per_char(run.model, articles[:limit], stride=stride))
        del scored["nats"]
        result.setdefault("bits_per_char", {})[name] = scored
    if items:
        result["multiple_choice"] = {
            str(count): {
                task: asdict(accuracy)
                for task, accuracy in multiple_choice(run.model, codec, items, shots=count).items()
            }
            for count in shots
        }
    return result


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """The result of `evaluate_run` as flat names, for W&B."""
    flat = {
        f"bits_per_char/{name}": scored["bits_per_char"] for name, scored in result.get("bits_per_char", {}).items()
    }
    for shots, tasks in result.get("multiple_choice", {}).items():
        for task, scored in tasks.items():
            flat |= {f"{task}/{shots}-shot/{key}": scored[key] for key in ("accuracy", "standard_error")}
    return flat


def table(result: dict[str, Any]) -> Table:
    """The result of `evaluate_run` for the terminal."""
    out = Table("measured on", "number", "value", "of", title=f"{result['run']} at step {result['step']}")
    for name, scored in result.get("bits_per_char", {}).items():
        out.add_row(name, "bits per character", f"{scored['bits_per_char']:.4f}", f"{scored['chars']:,} characters")
    for shots, tasks in result.get("multiple_choice", {}).items():
        for task, scored in tasks.items():
            value = f"{scored['accuracy']:.3f} ± {scored['standard_error']:.3f} (chance {scored['chance']:.2f})"
            out.add_row(task, f"accuracy, {shots} shots", value, f"{scored['items']:,} items")
    return out
