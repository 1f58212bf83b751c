"""The page of a preprocessing run: what was left out and why, with examples, and how fast it was."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.options import Options
from preprocess.report_page import REPORT, write_report
from preprocess.scan import DROPPED, dropped_row


def test_the_page_has_reasons_with_twenty_examples_lengths_and_speeds(
    options: Options, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(options.output_folder, folder)
    (folder / REPORT).unlink(missing_ok=True)
    rows = [
        dropped_row(f"a.jsonl#{i}", "a.jsonl", "quality: korean", f"0.{i:02} is below 0.25: <b>") for i in range(45)
    ]
    rows += [dropped_row("b.jsonl#1", "b.jsonl", "near-duplicate", "0.912 like a.jsonl#3")]
    pq.write_table(pa.Table.from_pylist(rows, schema=DROPPED), folder / "dropped.parquet")
    happened = [("morphemes: workers lost, articles quarantined", "2, 1")]
    write_report(folder, happened, {"morphemes": [(1.0, 1000.0), (2.0, 3000.0)]})
    page = (folder / REPORT).read_text(encoding="utf-8")
    assert "quality: korean: 20 of 45" in page
    assert page.count("is below 0.25: &lt;b&gt;") == 20
    assert "0.912 like a.jsonl#3" in page
    for heading in ("What was left out, and why", "Lengths", "Tokens per character", "Speed", "Sources", "Settings"):
        assert f">{heading}</h2>" in page
    assert "workers lost" in page
    assert page.count("<svg") >= 4, "pictures of reasons, lengths, tokens, and speed"
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "it asks for nothing"
