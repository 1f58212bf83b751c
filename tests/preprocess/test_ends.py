"""A scan that has not ended: it runs ahead of the analysis, and does not keep an interrupted run from ending."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from preprocess import outlines, unit_stage
from preprocess.analyzing import analyze
from preprocess.layouts import named_layout
from preprocess.options import Options
from preprocess.outlines import outlined
from preprocess.reading import Reading
from preprocess.scan import Block, PlannedUnit, Scan
from preprocess.sources import find_sources
from preprocess.unit_stage import UnitTexts
from preprocess.units import Store
from preprocess.worker import NotYet

_INTERRUPTED = """
import os, signal, sys
from kogpt.common.errors import UserError
from preprocess import pipeline, reading, spans, worker
from preprocess.options import Options

naps = []

def wait(_):
    naps.append(1)
    if len(naps) < 3:  # before the first block is asked for
        return
    if sys.argv[1] == "signal":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        raise UserError("the disk is full")

def arriving(self, span, count, rest):
    yield from arrives(self, span, count, rest) if span else iter([None] * 9)

arrives, reading.Readers._arriving = reading.Readers._arriving, arriving
pipeline.LARGE, spans.SPAN_SOURCES = 0, 1
worker.NotYet.wait = wait  # the scan waits for the next block
pipeline.preprocess(Options(
    input=(sys.argv[2],), output=sys.argv[3], tokenizer=sys.argv[4], analyzer="none", layout="plain",
    ray_address="local", workers=1,
))
"""


@pytest.mark.parametrize("cause", ["error", "signal"])
def test_a_run_that_is_interrupted_during_the_scan_ends(options: Options, tmp_path: Path, cause: str) -> None:
    arguments = (cause, options.input[0], str(tmp_path / "corpus"), options.tokenizer)
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == (-signal.SIGINT if cause == "signal" else 1)
    assert errors.rstrip().endswith("KeyboardInterrupt" if cause == "signal" else "the disk is full")
    assert errors.count("Started a local Ray instance") <= 1


def test_scan_runs_ahead_of_the_analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many units wait, each that is handed out brings the scan on by a whole block."""
    monkeypatch.setattr(outlines, "BLOCK", 256)
    monkeypatch.setattr(unit_stage, "PLENTY", 5)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{i}"}}\n' for i in range(256 * 40)))
    reading = Reading(named_layout("plain"), ())
    store = Store(tmp_path / "outlines")
    blocks = []
    for i, content in enumerate(outlined(reading.articles(find_sources((str(tmp_path / "a.jsonl"),))))):
        blocks.append(Block(0, f"{i:064x}"))
        store.put(blocks[-1].key, content)
    found = Scan(blocks, store, {"name": "none"})
    handed_out: list[bool] = []

    class Alone:
        """Takes the units and does not work."""

        def in_chunks(self, units: Iterator[PlannedUnit], left: Any) -> Iterator[Sequence[PlannedUnit]]:
            for unit in filter(None, units):
                handed_out.append(found.ended)
                yield [unit]

        def through_pool(self, stage: str, setup: Any, chunks: Iterable[Any], *_: Any, **__: Any) -> None:
            assert len(list(chunks)) == len(found.units)

    alone: Any = Alone()
    given = UnitTexts(found, lambda chunks: ((c, ()) for c in chunks if not isinstance(c, NotYet)), lambda _: ())
    analyze("morphemes", given, Store(tmp_path / "cache"), alone, "none", "")
    assert len(handed_out) > 3 * len(blocks)
    assert handed_out.index(True) <= len(blocks)
