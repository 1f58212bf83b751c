"""Texts in files: UTF-8 with or without a byte order mark, or cp949; gzip by the ending .gz. In: a path. Out: a string.

For files that a command names one by one (prompts, evaluation). Articles have parsers of their own
(preprocess.parsers), which read streams and let a broken line cost only itself. One file is in memory at a time.
"""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError


def decode(content: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark, or else cp949; UTF-8's UnicodeDecodeError if it is neither."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            return content.decode("cp949")
        except UnicodeDecodeError:
            raise error from None


def read_text(path: Path) -> str:
    """The text of a file, unpacked if its name ends in .gz; `UserError` if it cannot be read, as a device or pipe."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # it may have no end
        raise UserError(f"{path} is no regular file; give the name of a text file.")
    try:
        content = path.read_bytes()
        return decode(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a complete text in UTF-8 or cp949.") from None


def json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of a JSON lines file; `UserError` names the first line that is no object."""
    records = []
    # str.splitlines would also split at separators within texts.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise UserError(f"{path} line {number} is not a JSON object; fix or remove it.")
        records.append((number, record))
    return records
