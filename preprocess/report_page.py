"""OUTPUT/report.html: what a run read, kept, and dropped, and how fast it was, as a page to look at.

In: a finished corpus, and what happened in the run. Out: one file that opens in any browser (kogpt.common.page). It is
in neither the manifest nor the fingerprint, because it has times in it. A run that goes on after a kill knows only its
own times, and one that finds its corpus finished writes nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kogpt.common.page import Block, bars, details, heading, histogram, lines, paragraph, table, thinned, write_page
from kogpt.data.corpus import TokenCorpus, count_rows
from kogpt.data.facts import Reason, lengths, quantiles, reasons, scripts, sources, tokens_per_char
from kogpt.tokenizer.wordpiece import open_tokenizer

REPORT = "report.html"
_BINS = 40


def write_report(
    folder: Path, happened: Sequence[tuple[str, str]], speeds: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """Write the report of a corpus.

    `happened` are the rows about the run, `speeds` the (seconds since its start, characters/s) of each stage.
    """
    corpus = TokenCorpus.open(folder)
    manifest, tokenizer = corpus.manifest, open_tokenizer(corpus.tokenizer_folder)
    left_out, degraded = reasons(corpus), reasons(corpus, "degraded")
    blocks: list[Block] = [
        paragraph(f"Fingerprint {corpus.fingerprint}"),
        heading("Counts"),
        table(count_rows(manifest["counts"])),
        heading("What was left out, and why"),
        bars([(one.name, one.count) for one in left_out]),
        *map(_examples, left_out),
        heading("Kept without morpheme boundaries somewhere"),
        *(map(_examples, degraded) if degraded else [paragraph("none")]),
        heading("Sources"),
        table(
            [(s.name, *(f"{n:,}" for n in s[1:]), f"{s.tokens / max(1, s.chars):.3f}") for s in sources(corpus)],
            ("source", corpus.kind, "characters", "tokens", "tokens per character"),
        ),
        heading("Lengths"),
        *_distribution(lengths(corpus).astype(float), "characters", logarithmic=True),
        heading("Tokens per character"),
        *_distribution(tokens_per_char(corpus), "tokens per character"),
        heading("Scripts"),
        bars([(f"{name} (%)", round(100 * share, 2)) for name, share in scripts(corpus, tokenizer).items()]),
        heading("Speed"),
        *(
            block
            for stage, points in speeds.items()
            if points
            for block in (paragraph(stage), lines({stage: thinned(points)}, "seconds", "characters/s"))
        ),
        table(happened) if happened else paragraph("Everything was in the cache."),
        heading("Settings"),
        table([(name, str(value)) for name, value in manifest["settings"].items()]),
    ]
    write_page(folder / REPORT, f"Token corpus {folder.name}", blocks)


def _examples(reason: Reason) -> Block:
    summary = f"{reason.name}: {len(reason.examples):,} of {reason.count:,}"
    return details(summary, [table(reason.examples, ("id", "detail"))])


def _distribution(values: np.ndarray, name: str, logarithmic: bool = False) -> list[Block]:
    if not len(values):
        return [paragraph("none")]
    low, high = np.quantile(values, [0, 0.999]).tolist()
    low, high = (max(1.0, low), max(2.0, high)) if logarithmic else (low, high if high > low else low + 1)
    edges = np.geomspace(low, high, _BINS + 1) if logarithmic and high > low else np.linspace(low, high, _BINS + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    shown = [(name, f"{value:,.0f}" if logarithmic else f"{value:.3f}") for name, value in quantiles(values).items()]
    return [histogram(edges.tolist(), counts.tolist(), name, logarithmic), table(shown)]
