"""Text <-> tokens with the tokenizer folder of a corpus or run, for prompts as for articles.

str -> normalize -> analyze -> encode -> token ids, and back. The folder names the analyzer. It is started by the first
`encode` (Kkma takes about 1 s), or beside other work by `start`, and not needed for `decode`.
"""

import warnings
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from kogpt.tokenizer.analyzers.load import Analyzer, load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import open_tokenizer


class TextCodec:
    """Text <-> token ids with the tokenizer saved in `folder`."""

    def __init__(self, folder: str | Path):
        self.tokenizer = open_tokenizer(folder)
        self._starting: Future[Analyzer] | None = None

    def start(self) -> None:
        """Start the analyzer in a thread. The first `encode` waits for what is left of it, and raises what failed."""
        if self._starting is None:
            thread = ThreadPoolExecutor(1, thread_name_prefix="analyzer")
            self._starting = thread.submit(self._load)
            thread.shutdown(wait=False)

    @cached_property
    def _analyzer(self) -> Analyzer:
        return self._load() if self._starting is None else self._starting.result()

    def _load(self) -> Analyzer:
        expected = self.tokenizer.analyzer
        analyzer = load_analyzer(expected["name"])
        if analyzer.identity != expected:
            different = sorted(
                key
                for key in expected.keys() | analyzer.identity.keys()
                if expected.get(key) != analyzer.identity.get(key)
            )
            warnings.warn(
                f"the analyzer {expected['name']} differs from the one used for training in "
                f"{', '.join(different)}; prompts may be tokenized differently",
                stacklevel=3,
            )
        return analyzer

    def encode(self, text: str) -> list[int]:
        """The token ids of any text, without [CLS] and [SEP]."""
        text, _ = normalize(text)
        return self.tokenizer.encode(text, self._analyzer.analyze(text)) if text else []

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(ids)
