"""Multiple-choice tasks: the format of their files. In: JSON lines. Out: items, worded by kogpt.eval.wording.

A line is {task, context, question, choices, label}, or a record of a Korean benchmark with its own column names:

    KoBEST boolq      paragraph, question, label
    KoBEST copa       premise, question, alternative_1, alternative_2, label
    KoBEST hellaswag  context, ending_1 .. ending_4, label
    KoBEST sentineg   sentence, label
    KoBEST wic        context_1, context_2, word, label
    KMMLU             question, A, B, C, D, answer (from 1)
    HAE-RAE           query, options, answer ("(A)")
    CLIcK             paragraph, question, choices, answer (the text of a choice)

A new benchmark needs a function here, and a case in kogpt.eval.wording.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.text_files import json_lines
from kogpt.eval.multiple_choice import Item
from kogpt.eval.wording import LETTERS, wording
from kogpt.tokenizer.normalize import normalize

Record = dict[str, Any]


def read_items(path: str | Path) -> list[Item]:
    """The items of a `.jsonl` or `.jsonl.gz` file. Raises `UserError` with the line and the problem."""
    items = []
    for number, record in json_lines(Path(path)):
        try:
            items.append(_item(_with_our_names(record)))
        except ValueError as problem:
            raise UserError(
                f"{path} line {number} is not an item: {problem}; it needs task, context, choices, and a label that is "
                "the number of a choice, or the columns of KoBEST, KMMLU, HAE-RAE, or CLIcK."
            ) from None
    if not items:
        raise UserError(f"{path} has no items; give JSON lines of multiple-choice questions.")
    return items


def _boolq(record: Record) -> Record:
    return {"context": record["paragraph"], "choices": ["아니오", "예"]}


def _copa(record: Record) -> Record:
    return {"context": record["premise"], "choices": [record["alternative_1"], record.get("alternative_2")]}


def _hellaswag(record: Record) -> Record:
    return {"choices": [record[f"ending_{n}"] for n in range(1, 5) if f"ending_{n}" in record]}


def _sentineg(record: Record) -> Record:
    return {"context": record["sentence"], "choices": ["부정", "긍정"]}


def _wic(record: Record) -> Record:
    first, second = record["context_1"], record.get("context_2")
    if not isinstance(first, str) or not isinstance(second, str):
        raise ValueError("its context_1 or context_2 is not a text")
    context = "\n".join(sentence.replace("\n", " ") for sentence in (first, second))
    return {"context": context, "question": record.get("word"), "choices": ["아니오", "예"]}


def _kmmlu(record: Record) -> Record:
    answer = record.get("answer")
    label = answer - 1 if type(answer) is int else answer
    return {"context": record["question"], "question": "", "choices": [record[n] for n in "ABCD"], "label": label}


def _haerae(record: Record) -> Record:
    named = [f"({letter})" for letter in LETTERS]
    answer = record.get("answer")
    label = named.index(answer) if answer in named else answer
    return {"context": record["query"], "question": "", "choices": named, "label": label}


def _click(record: Record) -> Record:
    choices, answer = record["choices"], record.get("answer")
    label = choices.index(answer) if isinstance(choices, list) and answer in choices else answer
    return {"context": record.get("paragraph") or "", "choices": choices, "label": label}


_BENCHMARKS: dict[str, tuple[set[str], Callable[[Record], Record]]] = {
    "boolq": ({"paragraph", "label"}, _boolq),
    "copa": ({"premise", "alternative_1"}, _copa),
    "hellaswag": ({"context", "ending_1"}, _hellaswag),
    "sentineg": ({"sentence", "label"}, _sentineg),
    "wic": ({"context_1", "word"}, _wic),
    "kmmlu": ({"question", *"ABCD"}, _kmmlu),
    "haerae": ({"query", "answer"}, _haerae),
    "click": ({"question", "choices", "answer"}, _click),
}
"""The columns that tell each benchmark, and its record with our names."""


def _with_our_names(record: Record) -> Record:
    if "task" not in record:
        for task, (columns, renamed) in _BENCHMARKS.items():
            if columns <= record.keys():
                return {"task": task, **record, **renamed(record)}
    return record


def _item(record: Record) -> Item:
    task, context, choices, label = (record.get(name) for name in ("task", "context", "choices", "label"))
    question = record.get("question") or ""
    if not isinstance(task, str) or not task:
        raise ValueError("it has no task")
    if not isinstance(context, str) or not isinstance(question, str):
        raise ValueError("its context or question is not a text")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError("its choices are not a list of texts")
    if len(choices) < 2:
        raise ValueError(f"it has {len(choices)} choices, where two are needed")
    if not all(normalize(choice)[0].strip() for choice in choices):
        raise ValueError("one of its choices is empty")
    if type(label) is not int or not 0 <= label < len(choices):
        raise ValueError(f"its label is {label!r}, with {len(choices)} choices")
    prompt, choices = wording(task, context, question, choices)
    return Item(task, prompt, tuple(choices), label)
