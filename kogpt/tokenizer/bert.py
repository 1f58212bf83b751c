"""BERT's cased tokenization: text -> words -> WordPiece tokens, the same as BertTokenizerFast, in linear time.

White space separates words. Every punctuation mark and CJK ideograph is a word of its own. A word is split by greedy
longest match (Wu et al. 2016, section 4.1). A word of more than 100 characters, or one that the vocabulary cannot
cover, becomes [UNK]. Text never becomes any other special token: the brackets of a literal "[SEP]" are punctuation.
The kind of each character is asked of the `tokenizers` library once and then cached.

Cost: a table look-up per character and per word. (The library's own `encode` is quadratic in the number of words.)
"""

from functools import cache

from tokenizers import normalizers, pre_tokenizers

_LONGEST_WORD = 100
_CACHED = 1 << 16


def bert_normalizer() -> normalizers.Normalizer:
    """BERT's cased normalizer. It keeps accents, because stripping them would decompose Hangul syllables (NFD)."""
    return normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)


def bert_words(text: str) -> list[str]:
    """The words of a text, as BERT splits it."""
    return [word for word in text.translate(_spacing()).split(" ") if word]


class _Spacing(dict[int, str]):
    """Code point -> its replacement, so that spaces separate the words: itself, "", " ", or itself between spaces."""

    def __init__(self) -> None:
        super().__init__()
        self._normalizer, self._words = bert_normalizer(), pre_tokenizers.BertPreTokenizer()

    def __missing__(self, code: int) -> str:
        context = self._normalizer.normalize_str(f"a{chr(code)}a")
        words = [word for word, _ in self._words.pre_tokenize_str(context)]
        self[code] = " " + words[1] + " " if len(words) == 3 else " ".join(words)[1:-1]
        return self[code]


@cache
def _spacing() -> _Spacing:
    return _Spacing()


class BertWords(dict[str, tuple[int, ...]]):
    """word -> tokens of one vocabulary, computed on first use."""

    def __init__(self, ids: dict[str, int], unknown: int):
        super().__init__()
        self._ids, self._unknown = ids, (unknown,)
        self._longest = max(map(len, ids), default=1)

    def __missing__(self, word: str) -> tuple[int, ...]:
        if len(self) >= _CACHED:
            self.clear()
        self[word] = result = self._cut(word) if len(word) <= _LONGEST_WORD else self._unknown
        return result

    def _cut(self, word: str) -> tuple[int, ...]:
        ids: list[int] = []
        at = 0
        while at < len(word):
            prefix = "##" if at else ""
            for end in range(min(len(word), at + self._longest), at, -1):
                found = self._ids.get(prefix + word[at:end])
                if found is not None:
                    ids.append(found)
                    at = end
                    break
            else:
                return self._unknown
        return tuple(ids)
