"""Train a WordPiece vocabulary on segmented words: (word, whether it is a continuation) -> tokens by id.

The `tokenizers` library trains WordPiece by byte-pair merges (Sennrich et al. 2016) over symbols that know whether
they start a word. Here, a word may also start with a continuation (the second morpheme of an eojeol). The symbols of
continuations are therefore mapped to Unicode's private planes 15-16, the library's BPE trainer does the merges, and
the symbols are mapped back to `##`. The mapping also makes the result deterministic: the alphabet is sorted, while the
library's own WordPiece trainer numbers `##` symbols in the order of a hash table and breaks ties by that number.

Memory: the distinct words with their counts. Cost: that of the library's trainer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from kogpt.common.errors import UserError
from kogpt.tokenizer.pieces import SPECIAL_PIECES

_PRIVATE = 0xF0000  # where symbols of continuations go: character + _PRIVATE
_MOVABLE = 0x20000  # characters below it can go there
_UNCOVERED = 0.0005
SMALLEST_VOCABULARY = 300
_REPEATS = 1000


def train_vocabulary(words: Iterable[tuple[str, bool]], size: int) -> list[str]:
    """`size` tokens, or fewer if the words have no more: special tokens, characters, then merges.

    Characters outside the most frequent 99.95 %, or beyond half of the vocabulary, get no token (they become bytes).
    """
    if size < SMALLEST_VOCABULARY:
        raise UserError(f"--vocab-size {size}: a vocabulary needs at least {SMALLEST_VOCABULARY} tokens")
    counts: Counter[str] = Counter()
    for (word, continues), count in Counter(words).items():
        counts[_symbols(word, continues)] += count
    alphabet = _alphabet(counts, size // 2)
    if not alphabet:
        raise UserError("--vocab-size: the articles contain no word to train a vocabulary on")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIAL_PIECES),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_lines(counts, set(alphabet)), trainer)
    ids = tokenizer.get_vocab()
    return [_piece(symbols) for symbols in sorted(ids, key=ids.__getitem__)]


def _symbols(word: str, continues: bool) -> str:
    """The word with all its characters moved to the private planes, except a plain first one."""
    return "".join(
        # Characters that would leave Unicode (planes 2 and up) are not moved, and are never in the alphabet.
        chr(_PRIVATE + ord(c)) if (continues or i) and ord(c) < _MOVABLE else c
        for i, c in enumerate(word)
    )


def _piece(symbols: str) -> str:
    if symbols in SPECIAL_PIECES:
        return symbols
    text = "".join(map(_character, symbols))
    return "##" + text if ord(symbols[0]) >= _PRIVATE else text


def _character(symbol: str) -> str:
    return chr(ord(symbol) - _PRIVATE) if ord(symbol) >= _PRIVATE else symbol


def _alphabet(counts: Counter[str], limit: int) -> list[str]:
    """The most frequent symbols that cover 99.95 % of all (Kudo and Richardson 2018, character coverage).

    White space within a word (a tab, U+00A0, U+3000) is none of them: no text matches a token with it.
    """
    frequency: Counter[str] = Counter()
    for symbols, count in counts.items():
        for symbol in symbols:
            if (symbol >= chr(_PRIVATE) or ord(symbol) < _MOVABLE) and not _character(symbol).isspace():
                frequency[symbol] += count
    chosen: list[str] = []
    missing = frequency.total()
    enough = missing * _UNCOVERED
    for symbol, count in sorted(frequency.items(), key=lambda item: (-item[1], item[0])):
        if missing <= enough or len(chosen) == limit:
            break
        chosen.append(symbol)
        missing -= count
    return chosen


def _lines(counts: Counter[str], alphabet: set[str]) -> Iterator[str]:
    """The words, each as often as it occurs, split where a character is not in the alphabet."""
    for symbols, count in sorted(counts.items()):
        known = "".join(symbol if symbol in alphabet else " " for symbol in symbols).strip()
        for done in range(0, count if known else 0, _REPEATS):
            yield " ".join([known] * min(_REPEATS, count - done))
