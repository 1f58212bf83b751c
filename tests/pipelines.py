"""What tests of the preprocessing pipeline share: other outputs for the same options, and the bytes of a corpus."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from preprocess.options import Options

COUNT = 300
"""Articles of the input that `tests/preprocess/conftest.py` makes."""


def checksums(options: Options) -> dict[str, str]:
    """name -> sha256 of every file of a corpus folder."""
    folder = options.output_folder
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def elsewhere(options: Options, folder: Path, **changes: Any) -> Options:
    return replace(options, output=str(folder / "corpus"), **changes)
