"""Files and folders that are either complete or absent: write under a temporary name, fsync, rename.

Everything that lasts is written this way. A reader sees the old file (or folder) or the new one, never a part of it.
Temporary names are hidden, random, and created exclusively. They never collide with a name of the user, nor do two
writers of the same path. `remove_strays` removes what killed writers left. It removes only names of this kind whose
writer is gone: each writer holds a lock on its temporary file or folder. Where there are no such locks (Windows), it
removes nothing.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kogpt.common import system

LOCK = ".lock"
"""In a run folder: locked by the training that writes there."""
_STRAY = re.compile(r"\..+\.kogpt-[0-9a-f]{16}")


@contextmanager
def atomic_write(path: str | Path, flush: bool = True) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes. The file appears, complete and on disk, when the block ends.

    An exception in the block leaves an existing file untouched and removes the temporary one. A path that is not a
    regular file (a FIFO, a device) is written directly. `flush=False` leaves it to the system when the file goes to
    disk: for files that can be made again, and whose readers notice that a power cut has torn one.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    temporary, descriptor = _new_temporary(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert descriptor is not None
    try:
        with open(descriptor, "wb") as file:
            yield file
            system.before_rename(file, flush)
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if flush:
        fsync_folder(path.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder to write into. It becomes `path`, complete and on disk, when the block ends.

    `path` must be absent or an empty folder (OSError otherwise); its parents are created. An exception in the block
    removes what was written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, descriptor = _new_temporary(path, os.O_RDONLY)
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                system.fsync(Path(folder, name))
            system.fsync(Path(folder))
        if not system.OPENS_FOLDERS and path.is_dir():
            path.rmdir()  # Windows replaces no folder, not even an empty one
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    fsync_folder(path.parent)


def remove_strays(folder: str | Path) -> None:
    """Remove what killed writers left in a folder. Writers still at work are not disturbed."""
    for path in Path(folder).iterdir():
        if not _STRAY.fullmatch(path.name) or path.is_symlink():
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:  # already gone, or not readable
            continue
        try:
            if system.lock(descriptor, wait=False):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


@contextmanager
def only_writer(path: str | Path) -> Iterator[bool]:
    """Whether no other process is in such a block with the same lock file, which is made if it is absent.

    Nobody waits. True also where there are no locks: use this to save work, not to be safe.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield system.lock(descriptor, wait=False) is not False
    finally:
        os.close(descriptor)


def fsync_folder(folder: str | Path) -> None:
    """Make the names in `folder`, such as a rename just done, survive a power cut."""
    system.fsync(Path(folder))


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    # File systems allow 255 bytes. The name is shortened by characters, each of at most 4 bytes.
    return path.with_name(f".{path.name[:50]}.kogpt-{secrets.token_hex(8)}")


def _new_temporary(path: Path, flags: int) -> tuple[Path, int | None]:
    """A new temporary file, or a folder where `flags` creates no file: its name, and a descriptor that is locked.

    None for a folder on Windows, which opens none. An `OSError` names the path, not the temporary one.
    """
    makes_file = flags & os.O_CREAT
    while True:
        temporary = _temporary(path)
        try:
            if not makes_file:
                temporary.mkdir()
                if not system.OPENS_FOLDERS:
                    return temporary, None
            try:
                descriptor = os.open(temporary, flags, 0o666)
            except FileNotFoundError:
                if makes_file:
                    raise
                continue  # removed as below
        except OSError as error:
            error.filename = str(path)
            raise
        system.lock(descriptor, wait=True)  # in vain on a file system without locks, on which nothing is removed
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), temporary.stat()):
                return temporary, descriptor
        os.close(descriptor)  # another process removed it as a stray between its creation and its lock
