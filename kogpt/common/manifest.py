"""File entries of a manifest, and their verification: {name: {"bytes": int, "sha256": hex}}.

The manifest.json of a checkpoint or corpus contains such entries and is written last. Cost: one read of every file.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kogpt.common.files import sha256_of


def entries(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The size and checksum of each file, by its path within the folder."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}


def faults(folder: Path, files: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A clause for each file that does not match its entry. Sizes are compared before checksums."""
    for name, entry in files.items():
        path = folder / name
        try:
            if not path.is_file():
                yield f"{name} is missing"
            elif (size := path.stat().st_size) != entry["bytes"]:
                yield f"{name} has {size:,} bytes instead of {entry['bytes']:,}"
            elif sha256_of(path) != entry["sha256"]:
                yield f"{name} has changed: its checksum differs from the manifest"
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"
