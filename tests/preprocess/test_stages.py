"""The functions that actors run on a document, called in this process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kogpt.tokenizer.analyzers.analysis import Analysis, AnalyzerBroken
from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.chat import Message
from kogpt.tokenizer.wordpiece import load_tokenizer
from preprocess import stages
from preprocess.conversations import pack
from preprocess.stages import (
    EncodingStage,
    MorphemeStage,
    analyzed_messages,
    encoding_with,
    find_morphemes,
    without_analysis,
)
from preprocess.units import CutText

TEXT = "가 나다\n 漢字 🙂"


@pytest.fixture
def encode(tmp_path: Path) -> EncodingStage:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "가", "나", "##다"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return encoding_with(load_tokenizer(str(tmp_path), spacing="original", analyzer={"name": "none"}))


def test_analysis_survives_the_journey() -> None:
    document = CutText(TEXT, *MorphemeStage("none")()(TEXT))
    assert document.analysis() == load_analyzer("none").analyze(TEXT)
    assert find_morphemes("", load_analyzer("none")).analysis().morphemes == []
    cut = CutText("갔다", np.array([1], "<i4").tobytes(), "가\x1f았\x1f다", "reason")
    assert (cut.analysis().cuts, cut.analysis().morphemes) == ([1], ["가", "았", "다"])


@pytest.mark.parametrize("analyzer", ["none", "kkma"])
def test_each_message_is_analyzed_on_its_own(analyzer: str) -> None:
    """Within one text, the end of a message would change the analysis of the next one's beginning."""
    said = [Message("system", "짧게 답한다."), Message("user", "학교에 갔니"), Message("assistant", "안 갔다\n왜?")]
    alone = load_analyzer(analyzer)
    found = analyzed_messages(find_morphemes(pack(said), alone))
    assert [message for message, _ in found] == said
    assert [analysis for _, analysis in found] == [alone.analyze(message.content) for message in said]


def test_a_degraded_message_degrades_its_conversation() -> None:
    result = without_analysis(pack([Message("user", "물음"), Message("assistant", "답")]), "kkma", "it hung")
    assert result.degraded is not None
    assert [analysis.morphemes for _, analysis in analyzed_messages(result)] == [["물음"], ["답"]]


def test_text_that_runs_out_of_heap_is_a_suspect_and_broken_analyzer_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full:
        identity = {"name": "full"}  # noqa: RUF012

        def analyze(self, text: str) -> Analysis:
            if text == "broken":
                raise AnalyzerBroken
            return Analysis([], [], "kkma failed with java.lang.OutOfMemoryError" if text == "big" else None)

    monkeypatch.setattr(stages, "load_analyzer", lambda name: Full())
    monkeypatch.setattr(stages.os, "_exit", lambda code: pytest.fail(f"exit {code}"))
    work = MorphemeStage("full")()
    assert work("small") == (b"", "", None)
    with pytest.raises(MemoryError):
        work("big")
    with pytest.raises(pytest.fail.Exception, match="exit 1"):
        work("broken")


HEAP = """
import jpype
from kogpt.tokenizer.analyzers.kkma import analyzer as kkma
from preprocess.stages import MorphemeStage

work = MorphemeStage("kkma")()
sentence = "나는 학교에 갔다."
expected = work(sentence)
kkma.MAX_DOCUMENT = 10**9
for size in (60_000_000, 150_000_000):  # no heap for the string of the text; none even for its bytes
    try:
        work(sentence + "\\n" * size)
    except MemoryError:
        print("suspect", work(sentence) == expected, flush=True)
kkma._PROBE = (sentence + "\\n" * size, [])  # a heap that has no room for the proof either
work(sentence + "\\n" * size)
print("alive")
"""


def test_jvm_out_of_heap_is_survived_and_one_that_fails_the_proof_ends_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, timeout=250)
    assert done.stdout.splitlines() == ["suspect True", "suspect True"], done.stderr
    assert done.returncode == 1, done.stderr


def test_fallback_says_what_happened() -> None:
    fallback = without_analysis(TEXT, "kkma", "it ended or hung its worker")
    assert fallback.text == TEXT
    assert (
        fallback.degraded == "quarantined: kkma cannot analyse it (it ended or hung its worker); its words are not cut"
    )


def test_encoding_needs_nothing_but_the_bytes_of_the_tokenizer(encode: EncodingStage, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").unlink()
    tokenizer = load_analyzer("none")
    result = encode()(find_morphemes(TEXT, tokenizer)._replace(degraded="reason"))
    ids = np.frombuffer(result.ids, "<u4").tolist()
    assert ids[:3] == [5, 6, 7]
    assert result.unknown_ids == len("漢字🙂".encode())
    assert result.degraded == "reason"
