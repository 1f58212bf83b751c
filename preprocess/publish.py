"""A corpus for a URL: made in a local folder, then copied there, the manifest last.

Resuming needs renames and locks, which object stores do not have, so the work is done under ~/.cache/kogpt of the
node that runs the driver; the same command there goes on where it stopped.
"""

import hashlib
import posixpath
from pathlib import Path

import fsspec

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus


def staging_folder(url: str) -> Path:
    """Where the corpus for a URL is made."""
    return Path.home() / ".cache" / "kogpt" / hashlib.sha256(url.encode()).hexdigest()[:16] / "corpus"


def publish(folder: Path, url: str) -> int:
    """Copy a finished corpus to a URL; return how many files that took (0 where it was there already)."""
    corpus = TokenCorpus.open(folder)
    manifest = (folder / "manifest.json").read_bytes()
    try:
        files, root = fsspec.core.url_to_fs(url)
        target = posixpath.join(root, "manifest.json")
        if files.exists(target):
            if files.cat_file(target) == manifest:
                return 0
            raise UserError(f"--output {url} holds another corpus; name another place, or delete it")
        names = [*corpus.manifest["files"], "manifest.json"]
        for name in names:
            files.makedirs(posixpath.dirname(posixpath.join(root, name)), exist_ok=True)
            files.put_file(str(folder / name), posixpath.join(root, name))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"--output {url} cannot be written ({error}); the corpus itself is in {folder}") from None
    return len(names)
