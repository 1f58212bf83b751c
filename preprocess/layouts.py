"""Layouts: where the text of an article is in a JSON value. A small path language, and presets for known corpora.

A path consists of keys joined by dots. Keys are taken literally, including brackets, spaces, and Hangul. `[]` after a
key iterates over a list: the first one yields a document per element, and those below are joined into the text of the
document. `[+]` joins a list that belongs to one document:

    Meta(Refine).passage                    one document
    documents[].text[][].sentence           a document for each element of `documents`
    paragraphs[+].sentences[+].text         one document

If two or more lists are joined, the innermost contains sentences (joined by spaces) and the others lines (joined by
line feeds). A single list contains lines. Nulls and empty strings are skipped. A list at the top of a file is iterated.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

from kogpt.common.errors import UserError
from preprocess import namumark

_PART = re.compile(r"(.*?)((?:\[\+?\])*)", re.DOTALL)
_SPLIT, _JOIN = object(), object()


@dataclass(frozen=True)
class TextPath:
    """A parsed path. `documents(value)` applies it."""

    path: str

    def __post_init__(self) -> None:
        if not self.path or any(part == "" for part in self.path.split(".")):
            raise UserError(f"--text-path {self.path!r} has an empty key; write it like documents[].text[][].sentence")

    @cached_property
    def _steps(self) -> list[Any]:
        steps: list[Any] = []
        for part in self.path.split("."):
            match = _PART.fullmatch(part)
            assert match is not None  # the pattern matches every string
            if match[1]:
                steps.append(match[1])
            for marker in re.findall(r"\[\+?\]", match[2]):
                first = marker == "[]" and _SPLIT not in steps and _JOIN not in steps
                steps.append(_SPLIT if first else _JOIN)
        return steps

    @property
    def column(self) -> str:
        """The first key: the only column of a parquet file that has to be read."""
        return next((step for step in self._steps if isinstance(step, str)), "")

    def documents(self, value: Any) -> list[str | None]:
        """The texts of the documents in `value`; None for a document that has no text at the path."""
        steps = self._steps
        if isinstance(value, list) and isinstance(steps[0], str):
            return [text for element in value for text in self.documents(element) or [None]]
        if _SPLIT not in steps:
            text = _joined(value, steps)
            return [] if text is None else [text]
        at = steps.index(_SPLIT)
        elements = _follow(value, steps[:at])
        return [_joined(element, steps[at + 1 :]) for element in elements] if isinstance(elements, list) else []


def _follow(value: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _joined(value: Any, steps: list[Any]) -> str | None:
    """The text below `value`, or None when nothing there is a string."""
    return _join(value, steps, steps.count(_JOIN) > 1)


def _join(value: Any, steps: list[Any], sentences: bool) -> str | None:
    at = steps.index(_JOIN) if _JOIN in steps else len(steps)
    value = _follow(value, steps[:at])
    if at == len(steps):
        return value if isinstance(value, str) else None
    if not isinstance(value, list):
        return None
    rest = steps[at + 1 :]
    texts = [text for element in value if (text := _join(element, rest, sentences)) is not None]
    separator = " " if sentences and _JOIN not in rest else "\n"
    return separator.join(filter(None, texts)) if texts else None


@dataclass(frozen=True)
class Preset:
    """The layout of a known corpus: its name, the path to its texts, and the files that contain none."""

    name: str
    path: TextPath
    side_files: str = ""
    page: Callable[[Any], str | None] | None = None
    """Converts a value with markup to text; None if the value is not such a page."""
    page_columns: tuple[str, ...] = ()

    def documents(self, value: Any) -> list[str | None]:
        """The texts of the documents in a value; None for a document without text."""
        if self.page is None:
            return self.path.documents(value)
        return [self.page(element) for element in (value if isinstance(value, list) else [value])]

    def takes(self, texts: list[str | None]) -> bool:
        """Whether these `documents` show that the value belongs to this corpus."""
        return any(texts) if self.page is None else any(text is not None for text in texts)

    def is_side_file(self, file_name: str) -> bool:
        return bool(self.side_files) and fnmatch(file_name, self.side_files)


PRESETS = {
    preset.name: preset
    for preset in [
        Preset("aihub-book", TextPath("passage")),
        Preset("aihub-582", TextPath("Meta(Refine).passage")),
        Preset("aihub-97", TextPath("documents[].text[][].sentence")),
        Preset("aihub-large-book", TextPath("paragraphs[+].sentences[+].text"), "*INFO*"),
        Preset("aihub-expert", TextPath("data[].rows[].text")),
        Preset("aihub-paper", TextPath("data[].summary_section[].orginal_text")),  # [sic]
        Preset("aihub-mrc", TextPath("data[].paragraphs[].context")),  # and KorQuAD
        Preset("nikl", TextPath("document[].paragraph[].form")),
        Preset("namuwiki", TextPath("text"), page=namumark.page, page_columns=("namespace",)),
        Preset("plain", TextPath("text")),
    ]
}


@dataclass(frozen=True)
class Layout:
    """The presets of a run. The first one that finds text in a value gives its documents.

    `guessed_from` is a file that showed a guessed layout; it is empty for one that was asked for.
    """

    presets: tuple[Preset, ...]
    guessed_from: str = ""

    kind: ClassVar[str] = "articles"
    missing: ClassVar[str] = "no text at the path"
    """The reason for a value that has no document."""

    @property
    def name(self) -> str:
        return "+".join(preset.name for preset in self.presets)

    @cached_property
    def columns(self) -> set[str]:
        """The columns of a parquet file to read."""
        return {name for preset in self.presets for name in (preset.path.column, *preset.page_columns)}

    def reads(self, column: str) -> bool:
        """Whether a column of a parquet file has to be read."""
        return column in self.columns

    def joined(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values of a file, in which those that belong together have become one."""
        return iter(values)

    @property
    def joins(self) -> bool:
        """Whether values that follow one another may belong together."""
        return type(self).joined is not Layout.joined

    def documents(self, value: Any) -> list[Any]:
        """The texts of the documents in a value; None for a document without text."""
        best: list[str | None] = []
        for preset in self.presets:
            found = preset.documents(value)
            if preset.takes(found):
                return found
            best = best or found
        return best

    def describe(self, value: Any) -> str:
        """What was looked for in a value without text, and what was found."""
        paths = " or ".join(dict.fromkeys(preset.path.path for preset in self.presets))
        keys = ", ".join(map(str, islice(value, 12))) if isinstance(value, dict) else type(value).__name__
        return f"looked for {paths}; found {keys}"

    def is_side_file(self, file_name: str) -> bool:
        return any(preset.is_side_file(file_name) for preset in self.presets)


def named_layout(name: str) -> Layout:
    """The layout of the preset with this name."""
    if name not in PRESETS:
        raise UserError(f"--layout {name}: unknown layout; choose auto or one of {', '.join(PRESETS)}")
    return Layout((PRESETS[name],))


def path_layout(path: str) -> Layout:
    """The layout that `--text-path` describes."""
    return Layout((Preset(path, TextPath(path)),))


def matching(value: Any) -> list[str]:
    """The names of the presets that find text in a value."""
    return [name for name, preset in PRESETS.items() if preset.takes(preset.documents(value))]


# ---- advice


def advice(value: Any) -> str:
    """Suggest a --text-path for an unknown value: the path with the most Hangul, or else the most words.

    A path that is often empty counts for less. The turns of one conversation are joined.
    """
    sizes: dict[str, list[tuple[int, int]]] = defaultdict(list)
    _measure(value, "", 0, sizes)

    def weight(path: str) -> tuple[float, float]:
        share = sum(map(any, sizes[path])) / len(sizes[path])
        hangul, spaces = map(sum, zip(*sizes[path], strict=True))
        return hangul * share, spaces * share

    places = [
        path.replace("[]", "[+]", 1) if path.partition("[]")[0] in _SPOKEN else path
        for path in sorted(sizes, key=weight, reverse=True)
    ]
    if not places:
        return "give the path to the text with --text-path"
    others = f" (or {', '.join(places[1:4])})" if places[1:] else ""
    return f"give the path with --text-path {places[0]}{others}"


def _measure(value: Any, path: str, depth: int, sizes: dict[str, list[tuple[int, int]]]) -> None:
    """Record the number of Hangul syllables and of spaces of every string in a value, by path."""
    if isinstance(value, str) and path:
        head = value[:10_000]
        sizes[path].append((len(_HANGUL.findall(head)), head.count(" ")))
    elif isinstance(value, dict) and depth < _DEEPEST:
        for key, inner in islice(value.items(), 100):
            if isinstance(key, str) and key and "." not in key and not key.endswith("]"):
                _measure(inner, f"{path}.{key}" if path else key, depth + 1, sizes)
    elif isinstance(value, list) and depth < _DEEPEST:
        for inner in value[:20]:
            _measure(inner, f"{path}[]" if path else "", depth + 1, sizes)


_HANGUL = re.compile("[가-힣]")
_DEEPEST = 12
_SPOKEN = {"conversations", "messages", "dialogue", "dialogues", "utterance", "utterances", "turns", "speaker"}
