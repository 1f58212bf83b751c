"""Multiple-choice tasks: the format of their files and the wording of their prompts. In: JSON lines. Out: items.

A line is {task, context, question, choices, label}, or a record of KoBEST with its own column names:

    boolq      paragraph, question, label               the choices are 아니오 and 예
    copa       premise, question, alternative_1, alternative_2, label
    hellaswag  context, ending_1 .. ending_4, label

The prompts are those of lm-eval's KoBEST tasks. A new task needs a case in `_prompt` and, if its file has other
columns, one in `_from_kobest`.
"""

from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.text_files import json_lines
from kogpt.eval.multiple_choice import Item
from kogpt.tokenizer.normalize import normalize

_CONNECTORS = {"원인": "왜냐하면", "결과": "그래서"}


def read_items(path: str | Path) -> list[Item]:
    """The items of a `.jsonl` or `.jsonl.gz` file. Raises `UserError` with the line and the problem."""
    items = []
    for number, record in json_lines(Path(path)):
        try:
            items.append(_item(_from_kobest(record)))
        except ValueError as problem:
            raise UserError(
                f"{path} line {number} is not an item: {problem}; it needs task, context, choices, and a label that is "
                "the number of a choice, or the columns of a KoBEST task."
            ) from None
    if not items:
        raise UserError(f"{path} has no items; give JSON lines of multiple-choice questions.")
    return items


def _from_kobest(record: dict[str, Any]) -> dict[str, Any]:
    """The record with our names, if it has KoBEST's."""
    if "task" in record:
        return record
    shared = {"question": record.get("question"), "label": record.get("label")}
    if "paragraph" in record:
        return shared | {"task": "boolq", "context": record["paragraph"], "choices": ["아니오", "예"]}
    if "premise" in record:
        choices = [record.get("alternative_1"), record.get("alternative_2")]
        return shared | {"task": "copa", "context": record["premise"], "choices": choices}
    if "ending_1" in record:
        choices = [record[f"ending_{n}"] for n in range(1, 5) if f"ending_{n}" in record]
        return shared | {"task": "hellaswag", "context": record.get("context"), "choices": choices}
    return record


def _item(record: dict[str, Any]) -> Item:
    task, context, choices, label = (record.get(name) for name in ("task", "context", "choices", "label"))
    question = record.get("question") or ""
    if not isinstance(task, str) or not task:
        raise ValueError("it has no task")
    if not isinstance(context, str) or not isinstance(question, str):
        raise ValueError("its context or question is not a text")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError("its choices are not a list of texts")
    if not all(normalize(choice)[0].strip() for choice in choices):
        raise ValueError("one of its choices is empty")
    if type(label) is not int or not 0 <= label < len(choices):
        raise ValueError(f"its label is {label!r}, with {len(choices)} choices")
    return Item(task, _prompt(task, context, question), tuple(choices), label)


def _prompt(task: str, context: str, question: str) -> str:
    """The text before the choice."""
    if task == "copa":
        if question not in _CONNECTORS:
            raise ValueError(f"its question is {question!r}, where copa has {' or '.join(_CONNECTORS)}")
        return f"{context} {_CONNECTORS[question]}"
    if task == "boolq":
        return f"{context} 질문: {question} 답변:"
    return f"{context} {question}".strip()
