"""What an analyzer finds in a text: morphemes and cuts.

A cut is a code point offset into the text at which a morpheme starts: the text between cuts is the
surface of a morpheme, and the pieces join to the text exactly. An analysis is a pure function of the
text and the analyzer's identity; no clock decides anything, so a corpus comes out the same anywhere.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Analysis:
    """What an analyzer found in one text."""

    cuts: list[int]
    """Code point offsets where a morpheme starts, strictly increasing, 0 < cut < len(text)."""
    morphemes: list[str]
    """Exactly what the analyzer returns (dictionary forms; for "none" the words)."""
    degraded: str | None
    """None, or in one line which part of the text a stated fallback analysed."""


class AnalyzerBroken(RuntimeError):
    """The analyzer of this process cannot be trusted any more: the process must be replaced."""
