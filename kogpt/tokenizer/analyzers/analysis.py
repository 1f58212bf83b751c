"""The result of morphological analysis: morphemes and boundaries.

A boundary is a code point offset into the text at which a morpheme starts. The text between two boundaries is the
surface form of a morpheme, and the surface forms join to the exact text. An analysis is a pure function of the text and
the analyzer's identity. It depends on no clock, so a corpus is the same wherever it is made.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Analysis:
    """The analysis of one text."""

    cuts: list[int]
    """Code point offsets where a morpheme starts, strictly increasing, 0 < cut < len(text)."""
    morphemes: list[str]
    """Exactly what the analyzer returns: dictionary forms, or the words for "none"."""
    degraded: str | None
    """None, or one line about the part of the text that a fallback analyzed."""


class AnalyzerBroken(RuntimeError):
    """The analyzer of this process is no longer reliable; the process must be replaced."""
