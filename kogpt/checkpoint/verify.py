"""Whether a checkpoint is whole: its files against its manifest. In: folders. Out: what is wrong, in a clause."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kogpt.checkpoint.layout import (
    CONFIG,
    FORMAT,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    READABLE,
    STATE,
    kind_of,
    shard_file,
    step_folders,
)
from kogpt.common.files import sha256_of

log = logging.getLogger(__name__)


def verify(folder: Path, kinds: Iterable[str] | None = None) -> str | None:
    """What is wrong with a checkpoint (one clause), or None; `kinds` limits the check to these (`kind_of`)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        known = manifest["format"] == FORMAT and manifest["version"] in READABLE
        listed = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    if not known:
        return f"{MANIFEST} is not of format {FORMAT} version {' or '.join(map(str, READABLE))}"
    required = set(kinds) if kinds is not None else {MODEL, OPTIMIZER, CONFIG, STATE}
    if required - {kind_of(name) for name in listed} or not _has_all_ranks(listed):
        return f"{MANIFEST} does not list all files"
    for name, entry in listed.items():
        if (kinds is None or kind_of(name) in required) and (fault := _fault_of(folder / name, *entry)):
            return fault
    return None


def _has_all_ranks(listed: dict[str, Any]) -> bool:
    """Whether there is a file of each rank for each kind that was cut into shards."""
    cut = [name.removesuffix(".safetensors").split("-of-") for name in listed if "-of-" in name]
    kinds = {(start.rpartition("-")[0], int(ranks)) for start, ranks in cut if ranks.isdigit()}
    return all(shard_file(kind, rank, ranks) in listed for kind, ranks in kinds for rank in range(ranks))


def _fault_of(path: Path, size: int, digest: str) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != size:
        return f"{path.name} has {path.stat().st_size:,} bytes instead of {size:,}"
    try:
        if sha256_of(path) != digest:
            return f"{path.name} was altered (its sha256 is not the manifest's)"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return None


def newest_good(run: Path, kinds: Iterable[str] | None = None) -> Path | None:
    """The newest checkpoint that verifies; each broken one before it is skipped with a warning."""
    kinds = list(kinds) if kinds else None
    for folder in step_folders(run):
        if (fault := verify(folder, kinds)) is None:
            return folder
        log.warning(f"checkpoint {folder} is broken and skipped: {fault}")
    return None
