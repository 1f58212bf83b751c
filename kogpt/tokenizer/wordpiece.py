"""Text with morpheme boundaries <-> token ids: a BERT WordPiece vocabulary, made lossless.

`Tokenizer.encode(text, analysis)` takes normalized text (kogpt.tokenizer.normalize) and the boundaries of its
morphemes, and returns token ids without [CLS] and [SEP]. `decode` returns the text. There are two spacings:

original (lossless): The text consists of eojeols separated by ' ' and line feeds. Within an eojeol, each morpheme is
tokenized separately by greedy longest match (Wu et al. 2016, section 4.1; Song et al. 2021). The first token of an
eojeol is a plain one, all others are `##` continuations. One ' ' before an eojeol that starts with a plain token is
implied; any other separator is a token, `[SP]` or `[LF]`. A character without a token becomes its UTF-8 bytes
`<0xNN>`. The vocabulary is therefore the base vocabulary (ids unchanged), `[LF]`, `[SP]`, 256 bytes, and `##c` for
every single-character token c that lacks it, and the role tokens. Words may have any length, and there is no [UNK].
    decode(encode(normalize(t))) == normalize(t) for every t
Special tokens (`[..]`, `<0x..>`) and tokens with white space never match text.

morphemes (lossy): The ids that BERT's cased tokenizer gives for ' '.join(morphemes) with the base vocabulary, which
the role tokens follow (kogpt.tokenizer.bert). A literal "[SEP]" is three words here, never the special token.

Cost: linear; one dictionary look-up per morpheme (the results of the last 65,536 distinct ones are cached).
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.bert import BertWords, bert_words
from kogpt.tokenizer.hf import CUT, library_files, library_tokenizer
from kogpt.tokenizer.normalize import NORMALIZER
from kogpt.tokenizer.pieces import ROLE_PIECES, SPECIAL_PIECES, matchable
from kogpt.tokenizer.train import train_vocabulary
from kogpt.tokenizer.vocab import base_vocabulary

SPACINGS = ("original", "morphemes")
_BYTES = [f"<0x{value:02X}>" for value in range(256)]
_LITERAL = re.compile(r"\[({})".format("|".join(re.escape(piece[1:]) for piece in (*SPECIAL_PIECES, *ROLE_PIECES))))
_EOJEOL = re.compile(r"[^ \n]+")
_CACHED, _CACHED_LENGTH = 1 << 16, 32
_PLAIN, _GLUED, _BREAK, _BYTE, _SKIPPED = range(5)


class _Greedy(dict[str, tuple[int, ...]]):
    """Segment of text -> token ids by greedy longest match, computed when first needed."""

    def __init__(self, first: dict[str, int], rest: dict[str, int], byte_ids: list[int]):
        super().__init__()
        self._first, self._rest, self._byte_ids = first, rest, byte_ids
        self._longest = max(map(len, (*first, *rest)), default=1)

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids: list[int] = []
        table, at = self._first, 0
        while at < len(piece):
            for end in range(min(len(piece), at + self._longest), at, -1):
                found = table.get(piece[at:end])
                if found is not None:
                    ids.append(found)
                    at = end
                    break
            else:
                ids.extend(self._byte_ids[value] for value in piece[at].encode())
                at += 1
            table = self._rest
        result = tuple(ids)
        if len(piece) <= _CACHED_LENGTH:
            if len(self) >= _CACHED:
                self.clear()
            self[piece] = result
        return result


@cache
def encoder_digest() -> str:
    """A sha256 over the code that turns an analyzed text into tokens: part of the key under which they are kept."""
    files = [Path(__file__).with_name(name) for name in ("wordpiece.py", "pieces.py", "bert.py", "chat.py")]
    return hashlib.sha256(b"\n".join(file.read_bytes().replace(b"\r\n", b"\n") for file in files)).hexdigest()


class Tokenizer:
    """A vocabulary, with its spacing and the identity of the analyzer that finds the morpheme boundaries.

    `roles` maps "system", "user", and "assistant" to the tokens that begin their messages, and `end_id` is the token
    that ends one (kogpt.tokenizer.chat). An older vocabulary has none: `roles` is None.
    """

    end_id: int

    def __init__(self, vocab: list[str], *, spacing: str, analyzer: dict[str, str], source: str, base_size: int):
        if spacing not in SPACINGS:
            raise UserError(f"--spacing {spacing} is unknown; choose one of {', '.join(SPACINGS)}")
        self.vocab, self.spacing, self.analyzer = vocab, spacing, analyzer
        self.source, self.base_size = source, base_size
        self.vocab_size = len(vocab)
        self.vocab_bytes = ("\n".join(vocab) + "\n").encode()
        self.sha256 = hashlib.sha256(self.vocab_bytes).hexdigest()
        ids = {piece: i for i, piece in enumerate(vocab)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id = (
            ids[piece] for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
        )
        self._kinds, self._texts = [_PLAIN] * len(vocab), list(vocab)
        self._breaks: dict[str, int] = {}
        for i, piece in enumerate(vocab):
            if piece.startswith("##") and len(piece) > 2:
                self._kinds[i], self._texts[i] = _GLUED, piece[2:]
        self.roles: dict[str, int] | None = None
        if set(ROLE_PIECES) <= ids.keys():
            self.roles = {role: ids[f"[{role.upper()}]"] for role in ("system", "user", "assistant")}
            self.end_id = ids["[END]"]
        for piece in ("[PAD]", "[CLS]", "[SEP]", "[MASK]", *(ROLE_PIECES if self.roles else ())):
            if piece in ids:
                self._kinds[ids[piece]] = _SKIPPED
        if spacing == "original":
            for piece, text in (("[LF]", "\n"), ("[SP]", " ")):
                self._kinds[ids[piece]], self._texts[ids[piece]] = _BREAK, text
            byte_ids = [ids[piece] for piece in _BYTES]
            for i in byte_ids:
                self._kinds[i] = _BYTE
            self._breaks |= {" ": ids["[SP]"], "\n": ids["[LF]"]}
            first, rest = matchable(vocab)
            self._starts, self._continuations = _Greedy(first, rest, byte_ids), _Greedy(rest, rest, byte_ids)
        else:
            self._words = BertWords(ids, self.unk_id)
        self._unknown = {i for i, kind in enumerate(self._kinds) if kind == _BYTE} | {self.unk_id}

    @property
    def base_sha256(self) -> str:
        """The checksum of the vocabulary without role tokens, as versions before them wrote it."""
        pieces = [piece for piece in self.vocab if piece not in ROLE_PIECES]
        return hashlib.sha256(("\n".join(pieces) + "\n").encode()).hexdigest()

    @cached_property
    def _library(self) -> Any:
        return library_tokenizer(self.vocab, self.spacing)

    def encode(self, text: str, analysis: Analysis) -> list[int]:
        """The token ids of a normalized text, without [CLS] and [SEP]."""
        if self.spacing == "morphemes":
            words = self._words
            return [token for morpheme in analysis.morphemes for word in bert_words(morpheme) for token in words[word]]
        ids: list[int] = []
        extend, starts, continuations = ids.extend, self._starts, self._continuations
        for gap, pieces in _eojeols(text, analysis.cuts):
            tokens: tuple[int, ...] = starts[pieces[0]] if pieces else ()
            if gap != " " or not ids or not tokens or self._kinds[tokens[0]] == _BYTE:
                extend([self._breaks[character] for character in gap])
            extend(tokens)
            for piece in pieces[1:]:
                extend(continuations[piece])
        return ids

    def after_others(self, ids: list[int]) -> list[int]:
        """The token ids of a text that begins with a space, as they follow other tokens: most of them imply it."""
        implied = len(ids) > 1 and ids[0] == self._breaks.get(" ") and self._kinds[ids[1]] == _PLAIN
        return ids[1:] if implied else ids

    def presegment(self, text: str, analysis: Analysis) -> str:
        """The text from which the saved tokenizer.json gives the same ids: with U+001F between morphemes.

        So it is inside a literal special token, which the library would not read as text.
        """
        if self.spacing == "morphemes":
            return " ".join(analysis.morphemes)
        marked = "".join(gap + CUT.join(pieces) for gap, pieces in _eojeols(text, analysis.cuts))
        return _LITERAL.sub(rf"[{CUT}\1", marked)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids. [PAD], [CLS], [SEP], [MASK], and role tokens are skipped; invalid bytes: U+FFFD."""
        decoder = StreamDecoder(self)
        return "".join([decoder.push(i) for i in ids]) + decoder.flush()

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The tokens of ids as they are written in vocab.txt."""
        return [self.vocab[i] for i in ids]

    def count_unknown(self, ids: Iterable[int]) -> int:
        """How many of the tokens are [UNK] or bytes."""
        unknown = self._unknown
        return sum([i in unknown for i in ids])

    def save(self, folder: str | Path) -> None:
        """Write vocab.txt, kogpt.json, and for `transformers` tokenizer.json and tokenizer_config.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        card = {
            "spacing": self.spacing,
            "analyzer": self.analyzer,
            "normalizer": NORMALIZER,
            "source": self.source,
            "base_size": self.base_size,
            "sha256": self.sha256,
        }
        contents = {
            "vocab.txt": self.vocab_bytes,
            **library_files(self.vocab, self.spacing),
            "kogpt.json": (json.dumps(card, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode(),
        }
        for name, content in contents.items():
            with atomic_write(folder / name) as file:
                file.write(content)


class StreamDecoder:
    """Decode token by token: `"".join(push(i) for i in ids) + flush()` equals `decode(ids)`."""

    def __init__(self, tokenizer: Tokenizer):
        self._kinds, self._texts = tokenizer._kinds, tokenizer._texts
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._glue = True  # nothing was emitted yet, or a separator was: no implied space

    def push(self, id: int) -> str:
        """The text that token `id` adds. Bytes are held back until their character is complete."""
        kind = self._kinds[id]
        if kind == _SKIPPED:
            return ""
        if kind == _BYTE:
            self._glue = False
            return self._utf8.decode(bytes.fromhex(self._texts[id][3:5]))
        space = " " if kind == _PLAIN and not self._glue else ""
        self._glue = kind == _BREAK
        return self._utf8.decode(b"", final=True) + space + self._texts[id]

    def flush(self) -> str:
        """The text held back at the end: U+FFFD for an incomplete character."""
        return self._utf8.decode(b"", final=True)


def _eojeols(text: str, cuts: list[int]) -> Iterator[tuple[str, list[str]]]:
    """(separators before it, its morphemes) of each eojeol; last, the separators at the end, with no morphemes."""
    end, k, bounds = 0, 0, [*cuts, len(text)]
    for match in _EOJEOL.finditer(text):
        start, stop = match.span()
        gap = text[end:start]
        pieces = []
        while bounds[k] <= start:
            k += 1
        while bounds[k] < stop:
            pieces.append(text[start : bounds[k]])
            start = bounds[k]
            k += 1
        pieces.append(text[start:stop])
        end = stop
        yield gap, pieces
    yield text[end:], []


def _extend(base: list[str]) -> list[str]:
    """The base vocabulary with its ids unchanged, followed by the tokens that make it lossless."""
    known = set(base)
    added = [piece for piece in ("[LF]", "[SP]", *_BYTES) if piece not in known]
    singles = [piece for piece in base if len(piece) == 1 and not piece.isspace()]
    return base + added + [f"##{piece}" for piece in singles if f"##{piece}" not in known]


def _tokenizer(base: list[str], spacing: str, analyzer: dict[str, str], source: str) -> Tokenizer:
    vocab = _extend(base) if spacing == "original" else base
    return with_roles(Tokenizer(vocab, spacing=spacing, analyzer=analyzer, source=source, base_size=len(base)))


def with_roles(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with the role tokens at the end of its vocabulary, whose other ids stay."""
    if tokenizer.roles is not None:
        return tokenizer
    vocab = tokenizer.vocab + [piece for piece in ROLE_PIECES if piece not in tokenizer.vocab]
    return Tokenizer(
        vocab,
        spacing=tokenizer.spacing,
        analyzer=tokenizer.analyzer,
        source=tokenizer.source,
        base_size=tokenizer.base_size,
    )


def load_tokenizer(name_or_folder: str, *, spacing: str, analyzer: dict[str, str]) -> Tokenizer:
    """A BERT-style WordPiece vocabulary, from a folder with vocab.txt or by its name on the hub."""
    base, source = base_vocabulary(name_or_folder)
    return _tokenizer(base, spacing, analyzer, source)


def open_tokenizer(folder: str | Path) -> Tokenizer:
    """What `Tokenizer.save` wrote, checked against its checksum."""
    folder = Path(folder)
    try:
        card = json.loads((folder / "kogpt.json").read_bytes())
        vocab = (folder / "vocab.txt").read_bytes().decode().split("\n")[:-1]
        tokenizer = Tokenizer(
            vocab,
            spacing=card["spacing"],
            analyzer=card["analyzer"],
            source=card["source"],
            base_size=card["base_size"],
        )
    except OSError as error:
        raise UserError(
            f"{folder} is not a saved tokenizer ({error.strerror}: {error.filename}); copy the folder again"
        ) from None
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder} holds a damaged tokenizer ({error}); copy the folder again") from None
    if tokenizer.sha256 != card["sha256"]:
        raise UserError(f"{folder / 'vocab.txt'} is not the vocabulary that was saved; copy the folder again")
    return tokenizer


def train_tokenizer(
    documents: Iterable[tuple[str, Analysis]], size: int, *, spacing: str, analyzer: dict[str, str]
) -> Tokenizer:
    """Train a cased WordPiece vocabulary of `size` tokens (before the extension) on normalized, analyzed texts.

    The result depends on the texts and their boundaries, not on their order.
    """
    if spacing == "original":
        words = (
            (piece, i > 0)
            for text, analysis in documents
            for _, pieces in _eojeols(text, analysis.cuts)
            for i, piece in enumerate(pieces)
        )
    else:
        words = ((word, False) for _, analysis in documents for word in bert_words(" ".join(analysis.morphemes)))
    return _tokenizer(train_vocabulary(words, size), spacing, analyzer, f"trained-{size}")
