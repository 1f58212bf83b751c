"""The path language and the presets, on values shaped like the real data sets."""

import pytest

from kogpt.common.errors import UserError
from preprocess.layouts import PRESETS, Layout, TextPath, matching, named_layout, path_layout

BOOK = {"passage": "책의 요약", "metadata": {"doc_id": "CNTS-1", "doc_name": "책", "kdc_label": "역사"}}
REPORT = {
    "Meta(Acqusition)": {"doc_id": "REPORT-1", "doc_name": "보고서"},
    "Meta(Refine)": {"passage_id": "1", "passage": "보고서의 글", "passage_Cnt": "5"},
    "Annotation": {"summary1": "요약", "summary2": None, "summary3": None},
}
SUMMARIES = {
    "name": "문서요약",
    "documents": [
        {
            "id": "1",
            "text": [
                [{"index": 0, "sentence": "첫 문장."}, {"index": 1, "sentence": "둘째 문장."}],
                [],
                [{"index": 2, "sentence": "다음 문단."}, {"index": 3, "sentence": None}],
            ],
            "abstractive": ["요약"],
            "extractive": [0, None, 2],
        },
        {"id": "2", "text": [], "extractive": [None]},
        {"id": "3", "text": None},
        {"id": "4", "text": [[{"index": 0, "sentence": "넷째 글."}]]},
    ],
}
LARGE_BOOK = {
    "title": "책",
    "paragraphs": [
        {"sentences": [{"text": "하나."}, {"text": "둘."}]},
        {"sentences": None},
        {"sentences": [{"text": "셋."}]},
    ],
}
EXPERT = {"data": [{"rows": [{"text": "가."}, {"text": "나."}]}, {"rows": [{"text": "다."}]}]}
PAPER = {"data": [{"summary_section": [{"orginal_text": "논문.", "summary_text": "요약"}]}]}
MRC = {"data": [{"doc_id": 1, "paragraphs": [{"context": "행정 문서.", "qas": []}]}]}
NIKL = {
    "id": "NWRW",
    "document": [
        {"id": "1", "paragraph": [{"id": "1.1", "form": "첫 줄"}, {"id": "1.2", "form": "둘째 줄"}]},
        {"id": "2", "paragraph": [{"id": "2.1", "form": "다른 글"}]},
    ],
}


@pytest.mark.parametrize(
    ("name", "value", "texts"),
    [
        ("aihub-book", BOOK, ["책의 요약"]),
        ("aihub-582", REPORT, ["보고서의 글"]),
        ("aihub-97", SUMMARIES, ["첫 문장. 둘째 문장.\n다음 문단.", None, None, "넷째 글."]),
        ("aihub-large-book", LARGE_BOOK, ["하나. 둘.\n셋."]),
        ("aihub-expert", EXPERT, ["가.\n나.", "다."]),
        ("aihub-paper", PAPER, ["논문."]),
        ("aihub-mrc", MRC, ["행정 문서."]),
        ("nikl", NIKL, ["첫 줄\n둘째 줄", "다른 글"]),
        ("plain", {"text": "글"}, ["글"]),
        ("namuwiki", {"namespace": "0", "title": "가", "text": "[[글]]"}, ["글"]),
    ],
)
def test_preset_finds_every_text_and_no_other_preset_does(name: str, value: object, texts: list[str]) -> None:
    assert named_layout(name).documents(value) == texts
    assert [found for found in matching(value) if (name, found) != ("namuwiki", "plain")] == [name]


def test_every_preset_is_tested() -> None:
    tested = test_preset_finds_every_text_and_no_other_preset_does.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {row[0] for row in tested} == set(PRESETS)


def test_first_list_splits_unless_it_is_joined() -> None:
    value = {"a b": [{"글(1)": ["x", "y"]}, {"글(1)": ["z", ""]}]}
    assert TextPath("a b[].글(1)[]").documents(value) == ["x\ny", "z"]
    assert TextPath("a b[+].글(1)[]").documents(value) == ["x y\nz"]
    assert TextPath("a b[].글(1)").documents({"a b": [{"글(1)": "x"}, {}]}) == ["x", None]


def test_list_at_the_top_is_walked_and_hides_nothing() -> None:
    assert TextPath("text").documents([{"text": "x"}, {"other": 1}, {"text": 5}]) == ["x", None, None]
    assert TextPath("[].text").documents([{"text": "x"}, {}]) == ["x", None]


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, {"documents": "no list"}, {"documents": [None]}])
def test_values_of_another_shape_have_no_text(value: object) -> None:
    assert not any(TextPath("documents[].text[][].sentence").documents(value))


def test_layout_takes_the_first_preset_that_finds_text() -> None:
    layout = Layout((PRESETS["aihub-book"], PRESETS["aihub-582"]))
    assert layout.documents(REPORT) == ["보고서의 글"]
    assert layout.documents(BOOK) == ["책의 요약"]
    assert layout.name == "aihub-book+aihub-582"


def test_side_files() -> None:
    assert named_layout("aihub-large-book").is_side_file("책_INFO.json")
    assert not named_layout("nikl").is_side_file("책_INFO.json")


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"--text-path 'a\.\.b' has an empty key"):
        path_layout("a..b")
    with pytest.raises(UserError, match="--layout aihub: unknown layout; choose auto or one of aihub-book"):
        named_layout("aihub")
