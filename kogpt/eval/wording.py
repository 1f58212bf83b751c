"""The prompts of multiple-choice tasks, in the words of lm-eval. In: an item's parts. Out: its prompt and choices.

Source: lm-eval 0.4.13, the tasks kobest_*, kmmlu, haerae_*, and click. Copa has two spaces between its parts, and boolq
one at its end, as there. Tasks of other names are context and question, as they are.
"""

import re

LETTERS = "ABCDE"

_CONNECTORS = {"원인": "왜냐하면", "결과": "그래서"}
_IN_BRACKETS = re.compile(r"\[(.+?)\]")
_CLICK = "정답을 A, B, C, D 중에 골라 알파벳 하나로 답하시오.\n\n"


def wording(task: str, context: str, question: str, choices: list[str]) -> tuple[str, list[str]]:
    """The text before the choice, and the choices as they follow it. Raises `ValueError` for a part that is odd."""
    match task:
        case "copa":
            cause_or_effect = question.strip()  # KoBEST's training items have spaces behind some
            if cause_or_effect not in _CONNECTORS:
                raise ValueError(f"its question is {question!r}, where copa has {' or '.join(_CONNECTORS)}")
            return f"{context}  {_CONNECTORS[cause_or_effect]}", choices
        case "boolq":
            return f"{context} 질문: {question} 답변: ", choices
        case "hellaswag":
            return f"문장: {context}", choices
        case "sentineg":
            return f"문장: {context} 긍부정:", choices
        case "wic":
            return _wic(context, question), ["아니오", "예"]
        case "kmmlu":
            letters = _letters(task, choices, fewest=2)
            return _kmmlu(f"{context} {question}".strip(), letters, choices), letters
        case "click":
            letters = _letters(task, choices, fewest=4)
            return _click(context, question, choices), letters
    return f"{context} {question}".strip(), choices


def _wic(context: str, question: str) -> str:
    """Two sentences, one a line, and the word, which a question may hold in brackets."""
    sentences = context.split("\n")
    if len(sentences) != 2:
        raise ValueError(f"its context has {len(sentences)} lines, where wic has one for each of its two sentences")
    found = _IN_BRACKETS.search(question)
    word = found[1] if found else question
    if not word:
        raise ValueError("it has no word, which wic asks about")
    return f"문장1: {sentences[0]} 문장2: {sentences[1]} 두 문장에서 {word}가 같은 뜻으로 쓰였나?"


def _letters(task: str, choices: list[str], fewest: int) -> list[str]:
    """The letters that stand for the choices, and are what the model is to say."""
    if not fewest <= len(choices) <= len(LETTERS):
        raise ValueError(f"it has {len(choices)} choices, where {task} has {fewest} to {len(LETTERS)}")
    return list(LETTERS[: len(choices)])


def _kmmlu(question: str, letters: list[str], choices: list[str]) -> str:
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))
    return f"{question}\n{options}\n정답："


def _click(context: str, question: str, choices: list[str]) -> str:
    """CLIcK's prompt, which lists four options, also of the questions that have five."""
    a, b, c, d = choices[:4]
    options = f"A:{a}, B: {b}, C: {c}, D: {d}"
    start = f"주어진 질문을 천천히 읽고, 적절한 {_CLICK}"
    if context:
        start = f"주어진 맥락을 천천히 읽고, 질문에 대한 적절한 {_CLICK}맥락: {context}\n"
    return f"{start}질문: {question}\n보기:\n{options}\n정답:"
