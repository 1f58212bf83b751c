"""Morphological analyzers behind one interface: normalised text in, morphemes and cuts out.

`kkma` is konlpy's Kkma (see kkma.py), `kiwi` is kiwipiepy (optional), `none` cuts nothing.
`analyzer_identity` names what decides an analyzer's output without starting it (cache keys).
"""

from importlib import metadata
from typing import Protocol

from kogpt.common.errors import UserError
from kogpt.tokenizer.analyzers.analysis import Analysis

ANALYZERS = ("kkma", "none", "kiwi")


class Analyzer(Protocol):
    """Analyses texts; one instance may be shared by several threads."""

    identity: dict[str, str]

    def analyze(self, text: str) -> Analysis: ...


def load_analyzer(name: str) -> Analyzer:
    """The analyzer of that name, ready (for "kkma" this starts the process's one JVM: 4 to 5 s)."""
    identity = analyzer_identity(name)
    if name == "kkma":
        from kogpt.tokenizer.analyzers.kkma.analyzer import Kkma

        return Kkma(identity)
    return _Kiwi(identity) if name == "kiwi" else _Words(identity)


def analyzer_identity(name: str) -> dict[str, str]:
    """Everything that decides the output of that analyzer, found without starting it."""
    if name == "kkma":
        from kogpt.tokenizer.analyzers.kkma.patch import kkma_identity

        return kkma_identity()
    if name == "kiwi":
        return {"name": "kiwi"} | {package: _version(package) for package in ("kiwipiepy", "kiwipiepy_model")}
    if name == "none":
        return {"name": "none"}
    raise UserError(f"There is no analyzer {name!r}: choose one of {', '.join(ANALYZERS)}.")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise UserError(
            "The analyzer kiwi needs kiwipiepy, which is not installed: run pip install 'kogpt[kiwi]'."
        ) from None


class _Words:
    """No analysis: words as they stand."""

    def __init__(self, identity: dict[str, str]) -> None:
        self.identity = identity

    def analyze(self, text: str) -> Analysis:
        return Analysis([], text.split(), None)


class _Kiwi:
    """kiwipiepy's morphemes; its conjoining jamo (U+11A8...) become the compatibility jamo of vocabularies."""

    def __init__(self, identity: dict[str, str]) -> None:
        from kiwipiepy import Kiwi

        self.identity = identity
        self._kiwi = Kiwi(num_workers=1)

    def analyze(self, text: str) -> Analysis:
        tokens = list(self._kiwi.tokenize(text, compatible_jamo=True))
        starts = {token.start for token in tokens}
        cuts = sorted(start for start in starts if 0 < start < len(text))
        return Analysis(cuts, [token.form for token in tokens], None)
