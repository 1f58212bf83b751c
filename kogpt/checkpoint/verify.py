"""Verify checkpoints against their manifests. In: folders. Out: one clause about the first fault, or None."""

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
from kogpt.common.manifest import faults

log = logging.getLogger(__name__)


def verify(folder: Path, kinds: Iterable[str] | None = None) -> str | None:
    """The first fault of a checkpoint as one clause, or None. `kinds` limits the check to files of these kinds."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        known = manifest["format"] == FORMAT and manifest["version"] in READABLE
        listed = {name: {key: entry[key] for key in ("bytes", "sha256")} for name, entry in manifest["files"].items()}
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
    wanted = {name: entry for name, entry in listed.items() if kinds is None or kind_of(name) in required}
    return next(faults(folder, wanted), None)


def _has_all_ranks(listed: dict[str, Any]) -> bool:
    """Whether every kind that is split into one file per rank has the files of all ranks."""
    cut = [name.removesuffix(".safetensors").split("-of-") for name in listed if "-of-" in name]
    kinds = {(start.rpartition("-")[0], int(ranks)) for start, ranks in cut if ranks.isdigit()}
    return all(shard_file(kind, rank, ranks) in listed for kind, ranks in kinds for rank in range(ranks))


def newest_good(run: Path, kinds: Iterable[str] | None = None) -> Path | None:
    """The newest intact checkpoint, or None. Damaged ones are skipped with a warning."""
    kinds = list(kinds) if kinds else None
    for folder in step_folders(run):
        if (fault := verify(folder, kinds)) is None:
            return folder
        log.warning(f"Skipping the damaged checkpoint {folder}: {fault}.")
    return None
