"""Local files below a folder or matching a glob, following links to folders.

`walk(folder, steps)` yields (path, problem). `steps` are the parts of the glob after the folder, ("**", "*") for
everything. The problem says why the path cannot be read (a folder without permission, a broken link, a pipe), or is
None. Each folder is visited once per step of the glob, real folders before links, so that cycles of links end and a
file keeps its name without links. Hidden files and folders are reported but not entered.

Cost: one listing per folder; with `**`, of all folders below.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator
from fnmatch import fnmatchcase

from preprocess.archives import SYSTEM_FILE, is_system_file
from preprocess.streams import Broken

EVERYTHING = ("**", "*")


def walk(folder: str, steps: tuple[str, ...] = EVERYTHING) -> Iterator[tuple[str, Broken | None]]:
    """(path, None or the problem) of everything that matches, in no particular order."""
    if steps[-1] == "**":
        steps = (*steps, "*")
    real, links, visited = [(folder, 0)], list[tuple[str, int]](), set[tuple[str, int]]()
    while real or links:
        if not real:
            links.sort(reverse=True)
        path, at = real.pop() if real else links.pop()
        place = (os.path.realpath(path), at)
        if place in visited:
            continue
        visited.add(place)
        if steps[at] == "**":
            real.append((path, at + 1))
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            yield path, _unreadable(f"the folder cannot be listed: {error.strerror}")
            continue
        for entry in entries:
            yield from _entry(entry, steps, at, real, links)


def _entry(
    entry: os.DirEntry[str],
    steps: tuple[str, ...],
    at: int,
    real: list[tuple[str, int]],
    links: list[tuple[str, int]],
) -> Iterator[tuple[str, Broken | None]]:
    step, last = steps[at], at == len(steps) - 1
    hidden = is_system_file(entry.name) and not step.startswith(".")
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        if last and _matches(entry.name, step):
            why = "a broken link" if entry.is_symlink() else str(error.strerror)
            yield entry.path, _unreadable(why)
        return
    if stat.S_ISDIR(mode):
        if step == "**" or (not last and _matches(entry.name, step)):
            if not hidden:
                (links if entry.is_symlink() else real).append((entry.path, at if step == "**" else at + 1))
            elif step == "**":
                yield entry.path, SYSTEM_FILE
    elif last and _matches(entry.name, step):
        if hidden:
            yield entry.path, SYSTEM_FILE
        else:
            yield entry.path, None if stat.S_ISREG(mode) else NO_FILE


def _matches(name: str, step: str) -> bool:
    name, step = (unicodedata.normalize("NFC", text) for text in (name, step))
    return name == step or fnmatchcase(name, step)


def _unreadable(why: str) -> Broken:
    return Broken("unreadable file", why, "fix it, or leave it out of --input")


NO_FILE = _unreadable("a pipe, a socket or a device: each file is read twice")
