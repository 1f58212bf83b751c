"""Find mistakes before the work starts, not hours later. In: options. Out: nothing, or a `UserError`.

The output and the cache must be writable folders outside every --input folder, because a run must not read what it
wrote as articles. A glob may match them; `not_ours` skips the files that kogpt wrote.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from kogpt.common.errors import DISK_FULL, UserError
from preprocess.options import Options
from preprocess.plan import WORK
from preprocess.publish import check_url
from preprocess.remote import file_system
from preprocess.sources import Source
from preprocess.units import RESULT_NAME


def check(options: Options) -> None:
    """Check all options, and create the output and cache folders. Raises `UserError`."""
    if "://" in options.output:
        check_url_apart(options.output, options.input)
        check_url(options.output)
    output, cache = options.output_folder, options.cache_folder
    check_output(output)
    for flag, folder in (("--output", output), ("--cache", cache)):
        check_apart(flag, folder, options.input)
        _check_writable(flag, folder)


def check_output(folder: Path) -> None:
    """Refuse an output folder with other content."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; name a folder")
    if (
        folder.is_dir()
        and not (folder / WORK).is_dir()
        and not (folder / "manifest.json").is_file()
        and any(folder.iterdir())
    ):
        raise UserError(f"--output {folder} holds something that is not a corpus; name a new or empty folder")


def check_apart(flag: str, folder: Path, inputs: Sequence[str]) -> None:
    """Refuse an output or cache folder inside an input folder, whose files are all read."""
    for item in inputs:
        item = item.removeprefix("file://")
        if "://" in item or not (path := Path(item).expanduser()).is_dir():
            continue
        if folder.resolve().is_relative_to(path.resolve()):
            raise UserError(
                f"{flag} {folder} is inside --input {item}, whose files are all read; name a folder outside"
            )


def check_url_apart(url: str, inputs: Sequence[str]) -> None:
    """The same for a URL."""
    for item in inputs:
        if _is_in(url, item):
            raise UserError(f"--output {url} is inside --input {item}, whose files are all read; name a URL outside")


def _is_in(url: str, folder: str) -> bool:
    return f"{_one_name(url)}/".startswith(f"{_one_name(folder)}/")


def _one_name(item: str) -> str:
    """A URL by the first of its protocol's names, as s3:// for s3a://; a path as one of file://."""
    path = item.removeprefix("file://")
    if "://" not in path:
        return f"file://{Path(path).expanduser().resolve()}"
    try:
        files, path = file_system(item)
    except Exception:  # network libraries raise their own types; who reads or writes there says what is wrong
        return item.rstrip("/")
    return files.unstrip_protocol(path).rstrip("/")


def _check_writable(flag: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise UserError(f"{flag} {folder} cannot be written ({error.strerror}); name a writable folder") from None


def not_ours(sources: list[Source], options: Options) -> list[Source]:
    """The sources without the files of the output and the cache, which a glob may match."""
    output, cache = options.output_folder.resolve(), options.cache_folder.resolve()
    place = _one_name(options.output)

    def ours(source: Source) -> bool:
        if "://" in options.output and source.url.startswith(f"{place}/"):
            return True
        if not source.is_local:
            return False
        path = Path(source.paths[0]).resolve()
        in_cache = path.is_relative_to(cache) and (path.name.startswith(".") or RESULT_NAME.fullmatch(path.name))
        return bool(path.is_relative_to(output) or in_cache)

    return [source for source in sources if not ours(source)]
