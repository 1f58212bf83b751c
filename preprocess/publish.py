"""Write a corpus to a URL: build it in a local folder, then copy it, with the manifest last.

Resuming needs renames and locks, which object stores lack. The corpus is therefore built under ~/.cache/kogpt on the
node that runs the driver. The same command on that node continues it; on another node it begins again, with the results
that are in --cache.

While a corpus is being built, `.work` at the URL holds its settings, so that no run with others takes the URL. A corpus
that is finished there is finished for every node.
"""

import json
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from preprocess.plan import WORK, refuse_other
from preprocess.remote import BUCKETS, file_system, protocols, reason
from preprocess.report_page import REPORT

_MANIFEST, _PLAN = "manifest.json", f"{WORK}/plan.json"


class _Place:
    """A URL to write to."""

    def __init__(self, url: str):
        self.files, self._root = file_system(url)

    def path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def read(self, name: str) -> bytes | None:
        """A file, or None."""
        try:
            return self.files.cat_file(self.path(name))
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """What lies there."""
        try:
            return [posixpath.basename(path.rstrip("/")) for path in self.files.ls(self._root, detail=False)]
        except FileNotFoundError:
            return []

    def write(self, name: str, content: bytes | Path) -> None:
        """A file, complete or not at all where the store is one of objects."""
        path = self.path(name)
        if not BUCKETS.intersection(protocols(self.files)):  # those would make a bucket of a misspelled name
            self.files.makedirs(posixpath.dirname(path), exist_ok=True)
        if isinstance(content, Path):
            self.files.put_file(str(content), path)
        else:
            self.files.pipe_file(path, content)


@contextmanager
def _writing(url: str, saved: str = "") -> Iterator[_Place]:
    """The place of a URL. What its library raises becomes a `UserError`."""
    try:
        yield _Place(url)
    except UserError:
        raise
    except Exception as error:  # network libraries raise their own types
        raise UserError(f"--output {url} cannot be written: {reason(error)}{saved}") from None


def check_url(url: str) -> None:
    """Refuse a URL that cannot be written, or that holds something else, before the work."""
    with _writing(url) as place:
        names = place.names()
        if names and _MANIFEST not in names and WORK not in names:
            raise UserError(f"--output {url} holds something that is not a corpus; name a new or empty URL")
        if _MANIFEST not in names:
            place.write(f"{WORK}/begun", b"")


def is_finished(url: str, settings: dict[str, Any]) -> bool:
    """Whether the corpus of these settings is finished at the URL.

    Raises `UserError` if a corpus of other settings is there or was begun.
    """
    with _writing(url) as place:
        return _known(place, url, settings)[0]


def claim(url: str, settings: dict[str, Any]) -> None:
    """Write the settings to the URL if nothing is there. Raises `UserError` as `is_finished` does."""
    with _writing(url) as place:
        finished, plan = _known(place, url, settings)
        if not finished and (plan is None or plan.keys() < settings.keys()):  # a scan that has ended knows the articles
            place.write(_PLAN, json.dumps(settings, ensure_ascii=False).encode())


def _known(place: _Place, url: str, settings: dict[str, Any]) -> tuple[bool, dict[str, Any] | None]:
    """(whether the corpus is finished, otherwise the settings that it was begun with)."""
    if (manifest := place.read(_MANIFEST)) is not None:
        try:
            refuse_other(url, json.loads(manifest)["settings"], settings, "was made")
        except (ValueError, KeyError, TypeError):
            raise UserError(f"--output {url} holds another corpus; name another URL, or delete it") from None
        return True, None
    plan = json.loads(place.read(_PLAN) or "null")
    if plan is not None:
        refuse_other(url, plan, settings, "was begun")
    return False, plan


def publish(folder: Path, url: str) -> int:
    """Copy a finished corpus to a URL, and return the number of files copied (0 if it is already there)."""
    corpus = TokenCorpus.open(folder)
    with _writing(url, f"; the corpus is in {folder}, and the same command copies it") as place:
        there = place.read(_MANIFEST)
        if there is not None and there != (folder / _MANIFEST).read_bytes():
            raise UserError(f"--output {url} holds another corpus; name another URL, or delete it")
        names = [*corpus.manifest["files"], *filter(lambda name: (folder / name).is_file(), [REPORT]), _MANIFEST]
        if there is not None:
            names = []
        for name in tqdm(names, desc="copy", unit=" files", leave=False):
            place.write(name, folder / name)
        with suppress(Exception):  # where it may not be removed it does no harm
            place.files.rm(place.path(WORK), recursive=True)
    return len(names)
