"""What prompts go through, the very way articles went: text <-> ids by a corpus's (or run's) tokenizer folder.

str -> normalise -> analyse -> encode -> ids, and back. The folder says which analyzer its articles were cut by; it is
started at the first `encode` (Kkma: 4 to 5 s for its JVM), and never for `decode`.
"""

import warnings
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from kogpt.tokenizer.analyzers.load import Analyzer, load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import open_tokenizer


class TextCodec:
    """Text <-> ids by the tokenizer saved in `folder`."""

    def __init__(self, folder: str | Path):
        self.tokenizer = open_tokenizer(folder)

    @cached_property
    def _analyzer(self) -> Analyzer:
        expected = self.tokenizer.analyzer
        analyzer = load_analyzer(expected["name"])
        if analyzer.identity != expected:
            different = sorted(
                key
                for key in expected.keys() | analyzer.identity.keys()
                if expected.get(key) != analyzer.identity.get(key)
            )
            warnings.warn(
                f"the analyzer {expected['name']} differs from that of the training articles in "
                f"{', '.join(different)}: prompts may be cut otherwise",
                stacklevel=3,
            )
        return analyzer

    def encode(self, text: str) -> list[int]:
        """The ids of any text, without [CLS] and [SEP]."""
        text, _ = normalize(text)
        return self.tokenizer.encode(text, self._analyzer.analyze(text)) if text else []

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return self.tokenizer.decode(ids)
