"""Morphological analyzers behind one interface: normalized text in, morphemes and boundaries out.

`kkma` is konlpy's Kkma (see kkma/), `kiwi` is kiwipiepy (optional), `none` finds no boundaries within words.
`analyzer_identity` says what an analyzer's output depends on, without starting it (for cache keys).
"""

from importlib import metadata
from typing import Protocol

from kogpt.common.errors import UserError
from kogpt.tokenizer.analyzers.analysis import Analysis

ANALYZERS = ("kkma", "none", "kiwi")


class Analyzer(Protocol):
    """Analyzes texts. Several threads may share one instance."""

    identity: dict[str, str]

    def analyze(self, text: str) -> Analysis: ...


def load_analyzer(name: str) -> Analyzer:
    """Start the analyzer of this name (for "kkma", the process's JVM: about 1 s, the first time 5 s)."""
    identity = analyzer_identity(name)
    if name == "kkma":
        from kogpt.tokenizer.analyzers.kkma.analyzer import Kkma

        return Kkma(identity)
    return _Kiwi(identity) if name == "kiwi" else _Words(identity)


def analyzer_identity(name: str) -> dict[str, str]:
    """Everything that the output of this analyzer depends on."""
    if name == "kkma":
        from kogpt.tokenizer.analyzers.kkma.identity import kkma_identity

        return kkma_identity()
    if name == "kiwi":
        return {"name": "kiwi"} | {package: _version(package) for package in ("kiwipiepy", "kiwipiepy_model")}
    if name == "none":
        return {"name": "none"}
    raise UserError(f"--analyzer {name} is unknown; choose one of {', '.join(ANALYZERS)}.")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise UserError(
            "--analyzer kiwi needs kiwipiepy, which is not installed; run pip install 'kogpt[kiwi]'."
        ) from None


class _Words:
    """No analysis: the words of the text."""

    def __init__(self, identity: dict[str, str]) -> None:
        self.identity = identity

    def analyze(self, text: str) -> Analysis:
        return Analysis([], text.split(), None)


class _Kiwi:
    """kiwipiepy's morphemes. Its conjoining jamo (U+11A8...) become compatibility jamo, which vocabularies contain."""

    def __init__(self, identity: dict[str, str]) -> None:
        from kiwipiepy import Kiwi

        self.identity = identity
        self._kiwi = Kiwi(num_workers=1)

    def analyze(self, text: str) -> Analysis:
        tokens = list(self._kiwi.tokenize(text, compatible_jamo=True))
        starts = {token.start for token in tokens}
        cuts = sorted(start for start in starts if 0 < start < len(text))
        return Analysis(cuts, [token.form for token in tokens], None)
