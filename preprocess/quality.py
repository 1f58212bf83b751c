"""Quality rules: each is one function that measures a text, with the smallest and largest value a good text has.

In: a normalized text, and thresholds (`load_thresholds`: preprocess/quality_web.toml, or a TOML file of the user). Out:
the first rule that the text breaks, with what it measured, or None. A rule that the file does not name is off.

The rules are those of FineWeb-2 (Penedo et al. 2025; the thresholds of its configs/kor_Hang.yml, the measures of
datatrove's Gopher and FineWeb filters) and of EleutherAI's dps (configs/korean_jsonl.yaml). FineWeb-2 counts morphemes
as words. Here words are eojeols, because the analysis comes later and costs 100 times more. An eojeol is two to three
morphemes, so the same share of repeated 5-grams stands for a longer repetition, and the rules remove less.

Cost: 1 ms for an article of 1,400 characters, most of it repeated n-grams. Runs on the workers (preprocess.screen).
"""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from kogpt.common.errors import UserError

WEB = Path(__file__).with_name("quality_web.toml")
"""The thresholds of `--quality web`."""
_EXCERPT = 60


class Limits(NamedTuple):
    """The smallest and the largest value that a rule allows."""

    min: float | None = None
    max: float | None = None


Thresholds = Mapping[str, Limits]


class Measured:
    """A text with what several rules need of it, each made once."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def lines(self) -> list[str]:
        return [line for line in self.text.split("\n") if line.strip()]

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()


# ---- dps


def length(text: Measured) -> float:
    """Characters. dps `doc_len_filter`."""
    return len(text.text.strip())


def mean_word_length(text: Measured) -> float:
    """Characters of an eojeol on average. dps `mean_word_len_filter`; FineWeb-2 has 1 to 6 for morphemes."""
    return sum(map(len, text.words)) / max(1, len(text.words))


def symbols(text: Measured) -> float:
    """`#` and ellipses for each word. dps `symbol_to_word_ratio_filter`, after Gopher (Rae et al. 2021)."""
    return sum(text.text.count(symbol) for symbol in ("...", "…", "#")) / max(1, len(text.words))


def bullets(text: Measured) -> float:
    """Share of lines that begin with a bullet. dps `bullet_ellipsis_filter`, after Gopher."""
    return _share(line.lstrip().startswith(("*", "·", "•", "‧", "ㆍ", "-")) for line in text.lines)


def ellipsis(text: Measured) -> float:
    """Share of lines that end in an ellipsis. dps `bullet_ellipsis_filter`, after Gopher."""
    return _share(line.rstrip().endswith(("...", "…")) for line in text.lines)


_KOREAN, _SPACE = re.compile("[ㄱ-ㆎ가-힣]+"), re.compile(r"\s+")


def korean(text: Measured) -> float:
    """Share of Hangul in the characters that are not white space. dps `korean_word_ratio_filter`."""
    return _size(_KOREAN, text.text) / max(1, len(text.text) - _size(_SPACE, text.text))


# ---- FineWeb-2


def duplicate_lines(text: Measured) -> float:
    """Share of lines that repeat an earlier one. datatrove `dup_line_frac`, after Gopher."""
    return 1 - len(set(text.lines)) / max(1, len(text.lines))


def punctuated_lines(text: Measured) -> float:
    """Share of lines that end in punctuation. datatrove `line_punct_thr`, after FineWeb."""
    return _share(line.rstrip().endswith((".", "?", "!", "'", '"', "…", "”", "’", "。")) for line in text.lines)


def new_lines(text: Measured) -> float:
    """Line ends for each word, many in lists. datatrove `new_line_ratio`, after FineWeb."""
    return text.text.count("\n") / max(1, len(text.words))


_LETTER = re.compile(r"[^\W\d_]")


def words_with_letters(text: Measured) -> float:
    """Share of words with a letter in them. datatrove `max_non_alpha_words_ratio`, which is a minimum in spite of its
    name, after Gopher."""
    return _share(_LETTER.search(word) is not None for word in text.words)


_STOP_WORDS = (
    *("의", "다", "이", "는", "에", "을", "한", "년", "하", "은", "를"),
    *("했", "고", "에서", "가", "있", "으로", "인", "월", "로", "되"),
)


def stop_words(text: Measured) -> float:
    """Number of words that end in one of FineWeb-2's 21 stop words, which are particles and endings; punctuation is
    ignored. datatrove `min_stop_words`, after Gopher."""
    return sum(word.rstrip(".,?!)”’\"'").endswith(_STOP_WORDS) for word in text.words)


def _top_n_gram(n: int) -> Callable[[Measured], float]:
    def rule(text: Measured) -> float:
        words = text.words
        grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
        gram, count = max(grams.items(), key=lambda item: item[1], default=((), 0))
        return count * len(" ".join(gram)) / len(text.text) if count > 1 else 0.0

    rule.__doc__ = f"Share of characters in the most frequent {n}-gram of words. datatrove `top_n_grams`, after Gopher."
    return rule


def _duplicate_n_grams(n: int) -> Callable[[Measured], float]:
    def rule(text: Measured) -> float:
        words = text.words
        seen: set[tuple[str, ...]] = set()
        repeated = i = 0
        while i <= len(words) - n:
            gram = tuple(words[i : i + n])
            if gram in seen:
                repeated += sum(map(len, gram)) + n - 1
                i += n
            else:
                seen.add(gram)
                i += 1
        return repeated / max(1, len(text.text))

    rule.__doc__ = f"Share of characters in repeated {n}-grams of words. datatrove `dup_n_grams`, after Gopher."
    return rule


RULES: dict[str, Callable[[Measured], float]] = {
    rule.__name__: rule
    for rule in (
        *(length, mean_word_length, symbols, bullets, ellipsis, korean),
        *(duplicate_lines, punctuated_lines, new_lines, words_with_letters, stop_words),
    )
}
RULES |= {f"top_{n}_gram": _top_n_gram(n) for n in (2, 3, 4)}
RULES |= {f"duplicate_{n}_grams": _duplicate_n_grams(n) for n in (5, 6, 7, 8, 9, 10)}
"""name -> rule"""


def _share(answers: Iterator[bool]) -> float:
    found = list(answers)
    return sum(found) / max(1, len(found))


def _size(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))


# ---- thresholds


def broken_rule(text: str, thresholds: Thresholds) -> tuple[str, str] | None:
    """(rule, what it measured and where the text begins) of the first rule that a text breaks, or None."""
    measured = Measured(text)
    for name, limits in thresholds.items():
        value = RULES[name](measured)
        if limits.min is not None and value < limits.min:
            return name, f"{value:.4g} is below {limits.min:g}: {_excerpt(text)}"
        if limits.max is not None and value > limits.max:
            return name, f"{value:.4g} is above {limits.max:g}: {_excerpt(text)}"
    return None


def _excerpt(text: str) -> str:
    return " ".join(text[: 4 * _EXCERPT].split())[:_EXCERPT]


def load_thresholds(path: Path) -> dict[str, Limits]:
    """The thresholds of a TOML file, in its order. Raises `UserError` with the line or rule that is wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--quality {path} cannot be read ({error}); give web, none, or a TOML file") from None
    return {name: _limits(path, name, value) for name, value in content.items()}


def _limits(path: Path, name: str, value: object) -> Limits:
    if name not in RULES:
        raise UserError(f"--quality {path}: there is no rule {name}; choose from {', '.join(RULES)}")
    if not isinstance(value, dict) or not value or not value.keys() <= {"min", "max"}:
        raise UserError(f"--quality {path}: {name} needs min or max or both, for example {name} = {{ max = 0.2 }}")
    for limit in value.values():
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise UserError(f"--quality {path}: {name} is compared with {limit!r}; give a number")
    return Limits(**value)
