"""Whether a checkpoint is whole: its files against its manifest. In: folders. Out: what is wrong, in a clause."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from kogpt.checkpoint.layout import FILES, FORMAT, MANIFEST, VERSION, step_folders
from kogpt.common.files import sha256_of

log = logging.getLogger(__name__)


def verify(folder: Path, names: Iterable[str] | None = None) -> str | None:
    """What is wrong with a checkpoint (one clause), or None; `names` limits the check to these files."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        known = manifest["format"] == FORMAT and manifest["version"] == VERSION
        listed = {name: manifest["files"][name] for name in names or FILES}
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in listed.items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    if not known:
        return f"{MANIFEST} is not of format {FORMAT} version {VERSION}"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        try:
            if sha256_of(path) != digest:
                return f"{name} was altered (its sha256 is not the manifest's)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def newest_good(run: Path, names: Iterable[str] | None = None) -> Path | None:
    """The newest checkpoint that verifies; each broken one before it is skipped with a warning."""
    names = list(names) if names else None
    for folder in step_folders(run):
        if (fault := verify(folder, names)) is None:
            return folder
        log.warning(f"checkpoint {folder} is broken and skipped: {fault}")
    return None
