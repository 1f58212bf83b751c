"""Load a base vocabulary: a folder or a name on the hub -> the list of tokens by id.

A folder's vocab.txt (one token per line) is read directly, with the same result as `transformers` but without
importing it. A name on the hub goes through transformers' AutoTokenizer and its cache. The hub is contacted first with
a short time-out, because the libraries retry for most of a minute.
"""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError

_REQUIRED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_SECONDS = 5.0


def base_vocabulary(name_or_folder: str) -> tuple[list[str], str]:
    """(tokens by id, name of the source) of a BERT-style WordPiece vocabulary."""
    folder = Path(name_or_folder).expanduser()
    if folder.exists():
        vocab, source = _read_folder(folder), folder.resolve().name
    elif name_or_folder.count("/") != 1 or name_or_folder[0] in "./~":
        raise UserError(f"--tokenizer {name_or_folder}: there is no such folder, and it is not a valid name on the hub")
    else:
        vocab, source = _read_hub(name_or_folder), name_or_folder
    missing = [piece for piece in _REQUIRED if piece not in vocab]
    if missing:
        raise UserError(
            f"--tokenizer {name_or_folder}: not a BERT-style WordPiece vocabulary; it lacks {', '.join(missing)}"
        )
    return vocab, source


def _read_folder(folder: Path) -> list[str]:
    path, config = folder / "vocab.txt", folder / "tokenizer_config.json"
    if not path.is_file():
        raise UserError(f"--tokenizer {folder}: it has no vocab.txt; name a folder with a WordPiece vocabulary")
    try:
        _refuse_uncased(str(folder), json.loads(config.read_bytes()) if config.is_file() else {})
        # split, not splitlines: a token may be a Unicode line separator
        lines = path.read_bytes().decode().replace("\r\n", "\n").split("\n")
    except ValueError as error:
        raise UserError(
            f"--tokenizer {folder} is damaged ({error}); name a folder with a WordPiece vocabulary"
        ) from None
    return lines[:-1] if lines[-1] == "" else lines


def _read_hub(name: str) -> list[str]:
    from transformers import AutoTokenizer

    def load(**options: Any) -> Any:
        return AutoTokenizer.from_pretrained(name, use_fast=True, **options)

    try:
        try:
            tokenizer = load(local_files_only=True)
        except (OSError, ValueError):
            _reach_hub(name)
            tokenizer = load()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--tokenizer {name}: the tokenizer cannot be loaded ({reason})") from None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if type(getattr(backend, "model", None)).__name__ != "WordPiece":
        raise UserError(f"--tokenizer {name} is not a WordPiece tokenizer; name a BERT-style one")
    _refuse_uncased(name, tokenizer.init_kwargs)
    by_id = {i: piece for piece, i in tokenizer.get_vocab().items()}
    # A vocab.txt with a repeated line leaves an id without a token.
    return [by_id.get(i, f"[unused-{i}]") for i in range(max(by_id) + 1)]


def _refuse_uncased(name: str, config: dict[str, Any]) -> None:
    if config.get("do_lower_case") is True:
        raise UserError(
            f"--tokenizer {name} is uncased (do_lower_case); it would lose capital letters and, by stripping "
            "accents, Hangul; name a cased vocabulary"
        )


def _reach_hub(name: str) -> None:
    from huggingface_hub.constants import ENDPOINT

    try:
        with urllib.request.urlopen(urllib.request.Request(ENDPOINT, method="HEAD"), timeout=_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # any answer will do
    except OSError:
        raise UserError(
            f"--tokenizer {name}: {ENDPOINT} cannot be reached; name a local folder with a vocab.txt "
            "(--tokenizer FOLDER), or train a vocabulary (--vocab-size SIZE)"
        ) from None
