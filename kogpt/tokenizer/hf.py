"""The vocabulary for the `tokenizers` and `transformers` libraries: vocabulary -> tokenizer.json.

Spacing "original": a tokenizer for raw text that gives the ids of `Tokenizer.encode` with an uncut text (the analyzer
`none`), and loses nothing. It is WordPiece over the bytes of the text, each written as a character as in GPT-2, without
a prefix for continuations:

    plain `나라`: `Ġ` and its bytes     `[LF]`: `Ċ`     `[SP]`: `Ā` (NUL, which no normalized text contains)
    continuation `##라`: its bytes      `<0xEB>`: its byte

Greedy longest match over bytes falls back to the bytes of a character that has no token, which WordPiece over
characters cannot. The normalizer writes a space before each word that starts with a plain token, and NUL for each
space that is a token. A byte whose name is that of a character, and what no text may match, has the name `ā...`, and
the normalizer writes `ā` where a word starts with bytes. The analyzer's boundaries may be given as U+001F
(`Tokenizer.presegment`). Words of more than 128 characters are cut there, because the library's WordPiece is quadratic.

Spacing "morphemes": BertTokenizerFast with do_lower_case=False.
"""

import json
import re
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as LibraryTokenizer

from kogpt.tokenizer.bert import bert_normalizer
from kogpt.tokenizer.pieces import ROLE_PIECES, SPECIAL_PIECES, matchable

CUT = "\x1f"
"""A boundary between morphemes, in text for the library's tokenizer."""
_SPACE, _ODD, _GLUE = "\x00", "\x01", "\x02"  # a space that is a token; `ā`; after a token that no space follows
_LONGEST_WORD = 128
_NO_LIMIT = 1 << 30
_PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}


def library_tokenizer(vocab: list[str], spacing: str) -> LibraryTokenizer:
    """The library's tokenizer with this vocabulary."""
    special = [piece for piece in SPECIAL_PIECES + ROLE_PIECES if piece in set(vocab)]
    if spacing == "original":
        tokenizer = _byte_level(vocab, special)
    else:
        ids = {piece: i for i, piece in enumerate(vocab)}
        tokenizer = LibraryTokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
        tokenizer.normalizer = bert_normalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    return tokenizer


def library_files(vocab: list[str], spacing: str) -> dict[str, bytes]:
    """File name -> content, for AutoTokenizer.from_pretrained."""
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **{name: piece for name, piece in zip(names, SPECIAL_PIECES, strict=True) if piece in vocab},
    }
    return {
        "tokenizer.json": library_tokenizer(vocab, spacing).to_str().encode(),
        "tokenizer_config.json": (json.dumps(config, indent=1) + "\n").encode(),
    }


def library_names(vocab: list[str]) -> list[str]:
    """The name of each token of a vocabulary with the spacing "original" in tokenizer.json; no two are equal."""
    plain, rest = matchable(vocab)
    special = {*SPECIAL_PIECES, *ROLE_PIECES}
    wished: list[tuple[int, int, str]] = []  # (rank, id, name): the lower rank gets a name that two wish for
    for i, piece in enumerate(vocab):
        text = piece.removeprefix("##") if len(piece) > 2 else piece
        if piece in special:
            wished.append((0, i, piece))
        elif piece in ("[LF]", "[SP]"):
            wished.append((0, i, _written("\n" if piece == "[LF]" else _SPACE)))
        elif plain.get(piece) == i:
            wished.append((1, i, _written(f" {piece}")))
        elif rest.get(text) == i:
            wished.append((1, i, _written(text)))
        elif byte := re.fullmatch("<0x([0-9A-F]{2})>", piece):
            value = int(byte[1], 16)
            wished.append((2, i, ("" if value != 0x20 else _written(_ODD)) + _BYTE_NAMES[value]))
        else:
            wished.append((3, i, _written((" " if text == piece else "") + _ODD + text)))
    names: dict[str, int] = {}
    for _, i, name in sorted(wished):
        while name in names:
            name = _written(_ODD) + name
        names[name] = i
    return sorted(names, key=names.__getitem__)


def library_pieces(names: list[str]) -> list[str]:
    """The vocabulary with these names: the inverse of `library_names`."""
    known, odd = set(names), _written(_ODD)
    return [_piece(name, odd + name in known) for name in names]


def _piece(name: str, byte_is_odd: bool) -> str:
    """`byte_is_odd`: another token has this name after `ā`."""
    if name in (*SPECIAL_PIECES, *ROLE_PIECES) or not set(name) <= set(_BYTE_NAMES):
        return name
    if name in (_written("\n"), _written(_SPACE)):
        return "[LF]" if name == _written("\n") else "[SP]"
    bare = name.lstrip(_written(_ODD)) or _written(_ODD)
    if len(bare) == 1 and (bare != name or not byte_is_odd):
        return f"<0x{_BYTE_NAMES.index(bare):02X}>"
    text = bytes(map(_BYTE_NAMES.index, name)).decode("utf-8", "replace").lstrip(_ODD)
    return text[1:].lstrip(_ODD) if text.startswith(" ") and bare == name else f"##{text}"


def _byte_level(vocab: list[str], special: list[str]) -> LibraryTokenizer:
    names = library_names(vocab)
    plain, _ = matchable(vocab)
    # The shortest beginnings of words that are plain tokens: most of them are characters.
    beginnings = {text for text in plain if not any(text[:n] in plain for n in range(1, len(text)))}
    longer = "".join(f"|{re.escape(text)}" for text in sorted(beginnings) if len(text) > 1)
    begins = f"(?:{_one_of(text for text in beginnings if len(text) == 1)}{longer})"
    ids = {name: i for i, name in enumerate(names)}
    tokenizer = LibraryTokenizer(
        models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=_NO_LIMIT, continuing_subword_prefix="")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1e\\u007f-\\u009f]"), ""),
            normalizers.Replace(Regex("\\r\\n?"), "\n"),
            normalizers.NFC(),
            normalizers.Replace(Regex(f" (?!{begins})|(?<![^ \\n]) "), _SPACE),
            normalizers.Prepend(_GLUE),
            *(
                normalizers.Replace(Regex(f"{after}(?={what})"), after + mark)
                for what, mark in ((begins, " "), ("[^ \\x00-\\x02\\n]", _ODD))
                for after in (_GLUE, _SPACE, "\n")
            ),
            normalizers.Replace(_GLUE, ""),
        ]
    )
    # The bytes of a character at whose start is `ā`, one by one, unless the byte itself is called so.
    odd, later = _written(_ODD), _one_of(_BYTE_NAMES[0x80:0xC0])
    first = _one_of(name for name in _BYTE_NAMES[:0x80] + _BYTE_NAMES[0xC0:] if odd + name not in ids)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f" ?[^ \\x00\\n\\x1f]{{1,{_LONGEST_WORD}}}|[\\x00\\n]"), "isolated"),
            pre_tokenizers.Split(CUT, "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split(
                Regex(
                    f"(?<={odd}){first}|(?<={odd}[{_BYTE_NAMES[0xC2]}-{_BYTE_NAMES[0xF4]}]){later}"
                    f"|(?<={odd}[{_BYTE_NAMES[0xE0]}-{_BYTE_NAMES[0xF4]}].){later}"
                    f"|(?<={odd}[{_BYTE_NAMES[0xF0]}-{_BYTE_NAMES[0xF4]}]..){later}"
                ),
                "isolated",
            ),
            pre_tokenizers.Split(Regex(f"\\A{odd}\\z"), "removed"),
        ]
    )
    ends = "|".join(f"(?<=\\A{re.escape(piece)})" for piece in [*special, _written("\n")])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(f"(?:{ends})\\z"), _written(_GLUE)),
            decoders.ByteLevel(),
            decoders.Replace(Regex("(?<![^\\x00\\x02]) "), ""),
            decoders.Replace(Regex("[\\x01\\x02]"), ""),
            decoders.Replace(_SPACE, " "),
        ]
    )
    return tokenizer


def _byte_names() -> list[str]:
    """The character for each byte in GPT-2's vocabulary (Radford et al. 2019): printable ones stand for themselves."""
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in _PRINTABLE else chr(next(others)) for byte in range(256)]


_BYTE_NAMES = _byte_names()


def _written(text: str) -> str:
    return "".join(_BYTE_NAMES[byte] for byte in text.encode())


def _one_of(characters: Iterable[str]) -> str:
    """A regular expression that matches one of these characters."""
    escaped = "".join(re.escape(c) if c.isascii() else c for c in sorted(characters))
    return f"[{escaped}]" if escaped else "(?!)"
