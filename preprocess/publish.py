"""Write a corpus to a URL: build it in a local folder, then copy it, with the manifest last.

Resuming needs renames and locks, which object stores lack. The corpus is therefore built under ~/.cache/kogpt on the
node that runs the driver. The same command on that node continues it.
"""

import hashlib
import posixpath
from pathlib import Path

import fsspec

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from preprocess.report_page import REPORT


def staging_folder(url: str) -> Path:
    """The local folder in which the corpus for a URL is built."""
    try:
        home = Path.home()
    except RuntimeError:
        raise UserError(f"--output {url} is built in the home folder first, and there is none; set HOME") from None
    return home / ".cache" / "kogpt" / hashlib.sha256(url.encode()).hexdigest()[:16] / "corpus"


def check_url(url: str) -> None:
    """Refuse a URL that no installed file system knows how to write."""
    try:
        fsspec.core.url_to_fs(url)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"--output {url} cannot be written: {' '.join(str(error).split())}") from None


def publish(folder: Path, url: str) -> int:
    """Copy a finished corpus to a URL, and return the number of files copied (0 if it is already there)."""
    corpus = TokenCorpus.open(folder)
    manifest = (folder / "manifest.json").read_bytes()
    try:
        files, root = fsspec.core.url_to_fs(url)
        target = posixpath.join(root, "manifest.json")
        if files.exists(target):
            if files.cat_file(target) == manifest:
                return 0
            raise UserError(f"--output {url} holds another corpus; name another URL, or delete it")
        names = [*corpus.manifest["files"], *filter(lambda name: (folder / name).is_file(), [REPORT]), "manifest.json"]
        for name in names:
            files.makedirs(posixpath.dirname(posixpath.join(root, name)), exist_ok=True)
            files.put_file(str(folder / name), posixpath.join(root, name))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"--output {url} cannot be written ({error}); the corpus is in {folder}") from None
    return len(names)
