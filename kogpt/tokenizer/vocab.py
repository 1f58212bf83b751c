"""Load a base vocabulary: a folder or a name on the hub -> the list of tokens by id.

A folder's vocab.txt (one token per line), or else its tokenizer.json, is read directly, with the same result as
`transformers` but without importing it. A name on the hub goes through transformers' AutoTokenizer and its cache. The
hub is contacted first with a short time-out, because the libraries retry for most of a minute.
"""

import json
import re
import unicodedata
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.tokenizer.hf import library_pieces

_REQUIRED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_SECONDS = 5.0
_HANGUL, _JAMO = re.compile("[가-힣]"), re.compile("[\u1100-\u11ff]")


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
    _refuse_decomposed(name_or_folder, vocab)
    return vocab, source


def _read_folder(folder: Path) -> list[str]:
    path, library, config = (folder / name for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"))
    try:
        _refuse_uncased(str(folder), json.loads(config.read_bytes()) if config.is_file() else {})
        if path.is_file():
            # split, not splitlines: a token may be a Unicode line separator
            lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
            return lines[:-1] if lines[-1] == "" else lines
        if library.is_file():
            return _read_library_file(folder, json.loads(library.read_bytes()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"--tokenizer {folder} is damaged ({error}); name a folder with a WordPiece vocabulary"
        ) from None
    raise UserError(
        f"--tokenizer {folder}: it has neither vocab.txt nor tokenizer.json; name a folder with a WordPiece vocabulary"
    )


def _read_library_file(folder: Path, content: dict[str, Any]) -> list[str]:
    """The vocabulary of a tokenizer.json, which is all that transformers 5 saves."""
    model = content["model"]
    if model.get("type") != "WordPiece":
        raise UserError(f"--tokenizer {folder} is not a WordPiece tokenizer; name a BERT-style one")
    _refuse_uncased(str(folder), {"do_lower_case": (content.get("normalizer") or {}).get("lowercase")})
    ids = model["vocab"] | {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    return _pieces(_by_id(ids), model.get("continuing_subword_prefix"))


def _pieces(vocab: list[str], prefix: str | None) -> list[str]:
    """The tokens as in vocab.txt: without a prefix for continuations it is a tokenizer.json of ours."""
    return library_pieces(vocab) if prefix == "" else vocab


def _by_id(ids: dict[str, int]) -> list[str]:
    """The tokens by id; a vocab.txt with a repeated line leaves an id without a token."""
    by_id = {i: token for token, i in ids.items()}
    return [by_id.get(i, f"[unused-{i}]") for i in range(max(by_id) + 1)]


def _refuse_decomposed(name: str, vocab: list[str]) -> None:
    """A vocabulary whose Hangul is decomposed (NFD) matches nothing: texts are normalized to NFC."""
    composed = sum(_HANGUL.search(token) is not None for token in vocab)
    decomposed = [token for token in vocab if _JAMO.search(token)]
    hidden = sum(_HANGUL.search(unicodedata.normalize("NFC", token)) is not None for token in decomposed)
    if hidden > composed:
        raise UserError(
            f"--tokenizer {name}: the Hangul of its vocabulary is decomposed (NFD), so no text would match it; write "
            "its vocab.txt again in NFC: python -c 'import sys, unicodedata as u; "
            'sys.stdout.write(u.normalize("NFC", sys.stdin.read()))\' < vocab.txt > nfc/vocab.txt'
        )


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
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if type(model).__name__ != "WordPiece":
        raise UserError(f"--tokenizer {name} is not a WordPiece tokenizer; name a BERT-style one")
    _refuse_uncased(name, tokenizer.init_kwargs)
    return _pieces(_by_id(tokenizer.get_vocab()), getattr(model, "continuing_subword_prefix", None))


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
        pass  # any answer shows that the hub can be reached
    except OSError:
        raise UserError(
            f"--tokenizer {name}: {ENDPOINT} cannot be reached; name a local folder with a vocab.txt "
            "(--tokenizer FOLDER), or train a vocabulary (--vocab-size SIZE)"
        ) from None
