"""Read raw texts for an evaluation. In: a file or folder. Out: strings, and tokens for kogpt.eval.likelihood.

It reads *.txt (one text each), *.json (an object, or a list of them), and *.jsonl, also with .gz. An object has its
text under `text` or `passage`. The encoding is UTF-8 or cp949, as in preprocessing. Hidden files are skipped, and
other files are counted in a warning.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.text_files import json_lines, read_text
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.normalize import normalize

log = logging.getLogger(__name__)


def encoded_articles(codec: TextCodec, texts: Iterable[str]) -> list[tuple[list[int], int]]:
    """(tokens [CLS] ... [SEP], characters) of every text that is not empty after normalization."""
    sep, cls = codec.tokenizer.sep_id, codec.tokenizer.cls_id
    normal = (normalize(text)[0] for text in texts)
    return [([cls, *codec.encode(text), sep], len(text)) for text in normal if text]


def read_texts(path: str | Path) -> list[str]:
    """The texts of a file, or of all files below a folder in the order of their names."""
    path = Path(path)
    files = [path]
    if path.is_dir():
        below = (file for file in sorted(path.rglob("*")) if file.is_file())
        files = [file for file in below if not any(part[0] == "." for part in file.relative_to(path).parts)]
    texts: list[str] = []
    left_out = []
    for file in files:
        kind = Path(file.name.removesuffix(".gz")).suffix
        if kind == ".txt":
            texts.append(read_text(file))
        elif kind == ".jsonl":
            texts += [_text(record, f"{file} line {number}") for number, record in json_lines(file)]
        elif kind == ".json":
            texts += [_text(record, str(file)) for record in _json_records(file)]
        else:
            left_out.append(file.name)
    if not texts:
        raise UserError(f"{path} has no texts; give *.txt, *.json, or *.jsonl files, or a folder of them.")
    if left_out:
        log.warning(
            "%d of %d files below %s are ignored, because they are not .txt, .json, or .jsonl (%s).",
            len(left_out),
            len(files),
            path,
            ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else ""),
        )
    return texts


def _text(record: Any, place: str) -> str:
    text = record.get("text", record.get("passage")) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{place} has neither `text` nor `passage`; give one of them.")
    return text


def _json_records(path: Path) -> list[Any]:
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError):
        raise UserError(f"{path} is not JSON; fix or remove it.") from None
    return content if isinstance(content, list) else [content]
