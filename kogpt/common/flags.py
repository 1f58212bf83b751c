"""Types of flags for tyro: paths that are checked while the command line is parsed, and optional values.

A path is refused if it is empty, which Python would read as the current folder, or if the system cannot look it up (too
long, a loop of links, a closed folder above it). So no later code meets these cases. Only articles and texts may have
names that are not UTF-8, such as the Korean names of old Windows programs. Python keeps the bytes of these as lone
surrogates, and the libraries that open corpora and checkpoints refuse them.

The help of an optional flag shows neither `{None}|` nor `(default: None)`; the docstring says the default.
`flowing_help` joins the lines of these docstrings.
"""

import ast
import errno
import inspect
import os
import re
import textwrap
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, TypeVar

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from kogpt.common.ranges import Range

_Flags = TypeVar("_Flags")


def flowing_help(flags: type[_Flags]) -> type[_Flags]:
    """Decorate a dataclass of flags: the docstring of each field is one paragraph of --help.

    tyro 1.0 would break the paragraph wherever the docstring has a line break.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(flags)))
    except OSError:  # without its source, the class has no help either
        return flags
    assert isinstance(tree.body[0], ast.ClassDef)
    docstrings = {
        field.target.id: docstring.value.value
        for field, docstring in pairwise(tree.body[0].body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
    }
    for field in fields(flags):  # type: ignore[arg-type]
        if (docstring := docstrings.get(field.name)) is not None:
            field.metadata = MappingProxyType({"help": " ".join(str(docstring).split())})
    return flags


def _text(text: str) -> str:
    """The value as it was given; of a `ValueError` tyro makes a message with the flag's name."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it is not valid UTF-8") from None
    return text


def _source(text: str) -> str:
    """A path, glob, or URL of texts, of any name."""
    if not text:
        raise ValueError("the path is empty")
    try:
        os.stat(text)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR) and "://" not in text:
            raise ValueError(f"{text}: {error.strerror}") from None
    return text


def _location(text: str) -> str:
    """The same for all other files and folders, whose names are UTF-8."""
    return _text(_source(text))


def _path(text: str, checked: Callable[[str], str] = _location) -> Path:
    """A file or folder of this machine."""
    if "://" in text:
        raise ValueError(
            f"{text[:300]} is a URL; name a path, and copy from or to the URL, for example with aws s3 sync"
        )
    return Path(checked(text))


def _new_file(text: str) -> Path:
    """A file to write: found out now, not after hours of the work whose result it gets."""
    path = _path(text)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {path.parent}; create it first")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ValueError(f"{path} cannot be written; name another file")
    return path


def _new_folder(text: str) -> Path:
    """A folder to write, which may be there: what lies above it must be a folder that takes new names."""
    path = _path(text)
    above = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.lexists(folder))
    if not above.is_dir():
        raise ValueError(f"{above} is a file; name a folder")
    if not os.access(above, os.W_OK):
        raise ValueError(f"{above} cannot be written; name another folder")
    return path


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None


def _checkpoint(text: str) -> str:
    if text not in ("best", "last") and not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise ValueError(f"{text[:40]!r} is neither best, last, nor the number of a step")
    return text


class WeightedPath(NamedTuple):
    """A path, and its share if one was given after a `=`."""

    path: Path
    share: float | None = None

    def __str__(self) -> str:
        return str(self.path) if self.share is None else f"{self.path}={self.share:g}"


class Span(NamedTuple):
    """Steps from the first to the last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"


def _span(text: str) -> Span:
    found = re.fullmatch(r"([0-9]{1,15}):([0-9]{1,15})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"{text[:40]!r} is not FIRST:LAST, such as 10:13")
    return Span(int(found[1]), int(found[2]))


def _weighted(text: str) -> WeightedPath:
    """PATH or PATH=SHARE; a path that exists may have a `=` of its own."""
    start, equals, end = text.rpartition("=")
    if not equals or _path(text).exists():
        return WeightedPath(_path(text))
    share = _number(end)
    if not 0 < share < 10**6:
        raise ValueError(f"{text[:300]}: the share {end} is not a number above 0")
    return WeightedPath(_path(start), share)


def _spec(make: Callable[[str], Any], metavar: str = "PATH") -> Any:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: make(words[0]),
        is_instance=lambda value: value is None or isinstance(value, str | Path | int | float | Span),
        str_from_instance=lambda value: [str(value)],
    )


def _several(make: Callable[[str], Any], metavar: str) -> Any:
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=lambda words: tuple(make(word) for word in words),
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [str(one) for one in value or ()],
    )


def _optional(metavar: str) -> Any:
    return arg(metavar=metavar, help_behavior_hint="")


_PATH, _LOCATION, _TEXT = _spec(_path), _spec(_location), _spec(_text, "STR")

FilePath = Annotated[Path, _PATH]
FilePaths = Annotated[tuple[Path, ...], _several(_path, "PATH ...")]
NewFolder = Annotated[Path, _spec(_new_folder)]
Location = Annotated[str, _LOCATION]
"""A path, or a URL."""
Source = Annotated[str, _spec(_source)]
"""A path, glob, or URL of articles."""
OptionalSource = Annotated[Path | None, _spec(lambda text: _path(text, _source)), _optional("PATH")]
"""A file or folder of texts."""
OptionalPath = Annotated[Path | None, _PATH, _optional("PATH")]
OptionalNewFile = Annotated[Path | None, _spec(_new_file), _optional("PATH")]
OptionalLocation = Annotated[str | None, _LOCATION, _optional("PATH")]
WeightedPaths = Annotated[
    tuple[WeightedPath, ...], _several(_weighted, "PATH[=SHARE] ..."), _optional("PATH[=SHARE] ...")
]
"""Paths, each with a share of the whole."""
OptionalTexts = Annotated[tuple[str, ...] | None, _several(_text, "STR ..."), _optional("STR ...")]
Text = Annotated[str, _TEXT]
OptionalText = Annotated[str | None, _TEXT, _optional("STR")]
OptionalCheckpoint = Annotated[str | None, _spec(_checkpoint, "best|last|STEP"), _optional("best|last|STEP")]
"""Which checkpoint of a run (kogpt.checkpoint.choose)."""
OptionalSpan = Annotated[Span | None, _spec(_span, "FIRST:LAST"), _optional("FIRST:LAST")]
"""Steps, such as 10:13."""
OptionalCount = Annotated[int | None, Range(1), _spec(_whole, "INT"), _optional("INT")]
OptionalShare = Annotated[float | None, Range(0, 1), _spec(_number, "FLOAT"), _optional("FLOAT")]
OptionalAmount = Annotated[float | None, Range(0, above=True), _spec(_number, "FLOAT"), _optional("FLOAT")]
