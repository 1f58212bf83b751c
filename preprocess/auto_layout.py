"""`--layout auto`: find the presets that match a sample of the files. Out: a layout and a sentence about it.

A corpus holds articles or conversations, never both. If the sample shows both, or the scan later meets a value of the
other kind (`other_kind`), the run ends with a file of each. A value that can be read as an article counts as one.

The sample consists of files spread evenly over the sources, and of further files until something is found. From each
file it takes the first values with text; side files and leading empty values do not count.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from kogpt.common.errors import UserError
from preprocess.archives import file_name, kind_of
from preprocess.chat_layout import ChatLayout, is_chat, is_row, joined
from preprocess.layouts import PRESETS, Layout, advice, matching
from preprocess.parsers import PARSE_ERRORS, is_known, values
from preprocess.sources import Source
from preprocess.streams import Broken

_FILES, _VALUES = 24, 4
_MEMBERS, _EMPTY_VALUES = 2_000, 1_000


class _Everything(Layout):
    """Reads articles and conversations alike."""

    def reads(self, column: str) -> bool:
        return True

    def joined(self, values: Iterable[Any]) -> Iterator[Any]:
        return joined(values, lambda value: is_row(value) and not matching(value))


_EVERYTHING = _Everything(tuple(PRESETS.values()))

_READ_ME = re.compile(
    r"[\W\d_]*(?:read[\W_]?me|licen[cs]e|copying|copyright|notice|change[\W_]?log|contact|읽어보기|읽어보세요|읽어주세요|"
    r"라이[선센]스|이용[\W_]?약관|약관|저작권|변경[\W_]?이력|변경[\W_]?내역|문의|문의처|안내|안내문)[\W\d_]*\.(?:txt|md)",
    re.IGNORECASE,
)


def is_read_me(name: str) -> bool:
    """Whether a text file is, by its name, about the articles and not an article."""
    return _READ_ME.fullmatch(name) is not None


class _Sample:
    """What the sample has shown so far."""

    def __init__(self) -> None:
        self.presets: Counter[str] = Counter()
        self.values = self.texts = 0
        self.unknown = ""
        self.chats = 0
        self.examples: dict[str, str] = {}  # of each kind, the first file

    @property
    def found(self) -> bool:
        return bool(self.presets or self.texts or self.chats or self.unknown)

    def look(self, source: Source) -> None:
        """Look at the first values with text in a source."""
        wanted = _VALUES
        for name, stream in islice(source.members(), _MEMBERS):
            own = file_name(name)
            if not is_known(name) or _EVERYTHING.is_side_file(own) or is_read_me(own):
                continue
            if kind_of(name) == ".txt" and not isinstance(stream, Exception):
                self._text(name)  # whatever it contains
                continue
            try:
                for value in islice(_EVERYTHING.joined(values(name, stream, _EVERYTHING)), _EMPTY_VALUES):
                    wanted -= self._count(name, value)
                    if isinstance(value, str) or wanted <= 0:
                        break
            except Broken as broken:
                if broken.reason == "no text at the path":
                    self.unknown = self.unknown or f"({name}: {broken.detail}); {broken.mend}"
            except PARSE_ERRORS:
                pass  # reported when the file is read
            if wanted <= 0:
                return

    def _count(self, name: str, value: object) -> bool:
        """Count one value, and return whether it is informative."""
        if isinstance(value, Broken):
            return False
        if isinstance(value, str):
            self._text(name)
            return True
        self.values += 1
        found = matching(value)
        self.presets.update(found[:1])
        if found:
            self.examples.setdefault("articles", name)
        elif is_chat(value):
            self.chats += 1
            self.examples.setdefault("conversations", name)
            return True
        if not found and not any(text == "" for text in _EVERYTHING.documents(value)):
            self.unknown = self.unknown or f"({name}: {_EVERYTHING.describe(value)}); {advice(value)}"
            return True
        return bool(found)

    def _text(self, name: str) -> None:
        self.texts += 1
        self.examples.setdefault("articles", name)


def other_kind(value: Any, layout: Layout) -> bool:
    """Whether a value that has no document of the layout's kind has one of the other kind."""
    elements = value if isinstance(value, list) else [value]
    return any(map(is_chat if layout.kind == "articles" else matching, elements))


def refuse_mixture(layout: Layout, name: str, value: Any) -> None:
    """Raise UserError if the layout was guessed, because this value of the file `name` is of the other kind."""
    if layout.guessed_from:
        other = "conversations" if layout.kind == "articles" else "articles"
        presets = [preset.name for preset in layout.presets] or matching(value)
        raise _mixture({layout.kind: layout.guessed_from, other: name}, presets)


def _mixture(examples: dict[str, str], presets: Iterable[str]) -> UserError:
    return UserError(
        f"--layout auto: a corpus holds articles or conversations, but {examples['articles']} has articles and "
        f"{examples['conversations']} has conversations; give only one kind with --input, or choose: "
        f"--layout {next(iter(presets), 'plain')} reads the articles, --layout chat the conversations"
    )


def guess_layout(sources: list[Source]) -> tuple[Layout, str]:
    """(layout, sentence about what was found). Raises UserError if no file has a known layout."""
    step = max(1, -(-len(sources) // _FILES))
    sample = _Sample()
    others = (source for i, source in enumerate(sources) if i % step)
    for i, source in enumerate(chain(sources[::step], others)):
        if i >= _FILES and sample.found:
            break
        if is_known(source.name) or kind_of(source.name) in (".zip", ".tar", ".tgz"):
            sample.look(source)
    if len(sample.examples) > 1:
        raise _mixture(sample.examples, [name for name, _ in sample.presets.most_common()])
    if sample.chats:
        sentence = f"layout auto: conversations in {sample.chats} of {sample.values} sampled values"
        return ChatLayout(guessed_from=sample.examples["conversations"]), sentence
    if sample.unknown and not sample.presets:
        raise UserError(f"--layout auto does not recognize the files {sample.unknown}")
    example = sample.examples.get("articles", "")
    if not sample.presets:
        return Layout((PRESETS["plain"],), example), f"layout auto: plain text ({sample.texts} files sampled)"
    layout = Layout(tuple(preset for name, preset in PRESETS.items() if name in sample.presets), example)
    shares = ", ".join(f"{name} ({sample.presets[name]})" for name in PRESETS if name in sample.presets)
    return (
        layout,
        f"layout auto: {shares} of {sample.values} sampled values; use --layout or --text-path to choose another",
    )
