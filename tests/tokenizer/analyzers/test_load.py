"""The analyzers' interface: results, boundaries that join to the text, identities without starting an analyzer."""

import subprocess
import sys
from itertools import pairwise

import pytest

from kogpt.common.errors import UserError
from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.analyzers.load import Analyzer, analyzer_identity, load_analyzer

TEXTS = ["", " \n ", "나는 😀 학교에\n갔다 간다ㅋㅋ.", "  a👨‍👩‍👧b 漢字 ㄳ 한\t\n", "했는데"]


@pytest.fixture(scope="module", params=["none", "kkma", "kiwi"])
def analyzer(request: pytest.FixtureRequest) -> Analyzer:
    if request.param == "kiwi":
        pytest.importorskip("kiwipiepy", reason="the optional analyzer is not installed")
    return load_analyzer(request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_cuts_are_increasing_offsets_within_the_text(analyzer: Analyzer, text: str) -> None:
    analysis = analyzer.analyze(text)
    assert analysis.cuts == sorted(set(analysis.cuts))
    assert all(0 < cut < len(text) for cut in analysis.cuts)
    bounds = [0, *analysis.cuts, len(text)]
    assert "".join(text[a:b] for a, b in pairwise(bounds)) == text
    assert bool(analysis.morphemes) == bool(text.strip())
    assert analysis.degraded is None


def test_none_splits_at_white_space() -> None:
    assert load_analyzer("none").analyze(" 나는 학교에\n간다 ") == Analysis([], ["나는", "학교에", "간다"], None)


def test_kiwi_gives_compatibility_jamo_and_code_point_cuts() -> None:
    pytest.importorskip("kiwipiepy", reason="the optional analyzer is not installed")
    text = "😀 나는 간다."
    analysis = load_analyzer("kiwi").analyze(text)
    assert analysis.morphemes == ["😀", "나", "는", "가", "ㄴ다", "."]
    assert not any(0x1100 <= ord(character) <= 0x11FF for form in analysis.morphemes for character in form)
    assert [text[cut] for cut in analysis.cuts] == ["나", "는", "간", "."]


def test_an_unknown_name_is_a_user_error_that_names_the_choices() -> None:
    with pytest.raises(UserError, match="kkma, none, kiwi"):
        load_analyzer("mecab")


def test_identities_need_neither_jpype_nor_kiwipiepy() -> None:
    code = (
        "import sys; from kogpt.tokenizer.analyzers.load import analyzer_identity as a;"
        "print(a('kkma')['jar'], a('none'), a('kiwi')['name']);"
        "assert not {'jpype', 'kiwipiepy', 'konlpy'} & set(sys.modules)"
    )
    pytest.importorskip("kiwipiepy", reason="the optional analyzer is not installed")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_loaded_analyzer_has_the_identity_that_was_foretold(analyzer: Analyzer) -> None:
    assert analyzer.identity == analyzer_identity(analyzer.identity["name"])


def test_without_kiwipiepy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(UserError, match=r"kogpt\[kiwi\]"):
        load_analyzer("kiwi")
