"""`--layout auto`: what it finds among side files, and its message if it finds nothing."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipelines import articles_in

from kogpt.common.errors import UserError
from preprocess.auto_layout import guess_layout, is_read_me
from preprocess.documents import Document
from preprocess.layouts import Layout, path_layout
from preprocess.sources import find_sources


def guess(path: Path) -> Layout:
    return guess_layout(find_sources((str(path),)))[0]


def texts(path: Path, layout: Layout) -> list[str]:
    return [a.text for a in articles_in(find_sources((str(path),)), layout) if isinstance(a, Document)]


def zip_of(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


BOOKS = {f"기사/{i}.json": json.dumps({"passage": f"{i}번 글이다."}) for i in range(5)}
SIDE_FILES = {
    "mac": {f"__MACOSX/기사/._{i}.json": "\x00\x05\x16\x07" for i in range(5)},
    "binary": {"00.pdf": "%PDF", "01.hwp": "x", "02.xlsx": "x", "03.png": "x", "04": "x"},
    "texts": {f"0_{name}.txt": "읽을 것" for name in ("읽어보기", "이용약관", "변경이력", "문의", "README")},
    "empty": {f"0{i}.json": '{"passage": ""}' for i in range(9)},
    "broken": {f"0{i}.json": "{" for i in range(9)},
}  # fmt: skip


@pytest.mark.parametrize("first", SIDE_FILES)
def test_articles_are_found_behind_what_is_none(tmp_path: Path, first: str) -> None:
    path = zip_of(tmp_path / "a.zip", SIDE_FILES[first] | BOOKS)
    assert guess(path).name == "aihub-book"
    assert texts(path, guess(path)) == [f"{i}번 글이다." for i in range(5)]


def test_other_texts_first_do_not_hide_the_articles(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {f"0{i}.txt": f"글 {i}" for i in range(9)} | BOOKS)
    assert guess(path).name == "aihub-book"
    assert len(texts(path, guess(path))) == 14


def test_files_beyond_the_sample_are_looked_at_until_something_is_found(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / f"{i:03}.png").write_bytes(b"x")
    (tmp_path / "001.json").write_text('{"Meta(Refine)": {"passage": "글"}}')
    assert guess(tmp_path).name == "aihub-582"


PLACES: list[tuple[str, Any, str]] = [
    ("Text", {"ID": "1", "Text": "구한말에 형제가 살았다.", "Question": "죽였는가?"}, "구한말에 형제가 살았다."),
    ("review", [{"review": "재밌다 정말로", "date": "15.07.27"}], "재밌다 정말로"),
    ("output", [{"input": "아주 긴 입력이 한 번", "output": "짧은 답"}, {"input": "", "output": "짧은 말"}], "짧은 답"),
    ("body[].paragraphs[]", {"body": [{"paragraphs": ["하나", "둘"]}]}, "하나\n둘"),
    ("story.en", {"story.ko": "점이 있는 열쇠", "story": {"en": "words here"}}, "words here"),
]


@pytest.mark.parametrize(("place", "value", "text"), PLACES)
def test_the_flag_that_the_error_names_reads_the_file(tmp_path: Path, place: str, value: Any, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    with pytest.raises(
        UserError, match=r"does not recognize the files \(a.json: looked for passage or .*; found "
    ) as caught:
        guess(path)
    named = str(caught.value).partition("; give the path with --text-path ")[2].split(" ")[0]
    assert named == place
    assert texts(path, path_layout(named))[0] == text


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("conversations[+].value", [{"conversations": [{"from": "a", "value": "안녕"}, {"from": "b", "value": "응"}]}]),
        ("document[].utterance[].form", {"document": [{"utterance": [{"form": "안녕", "speaker_id": "1"}]}]}),
        ("dialogue[+][]", [{"persona": ["나"], "dialogue": [["안녕하세요", "반가워요"]]}]),
        ("chosen", {"question": "물음", "chosen": "고른 답이다", "rejected": "아니"}),
    ],
)
def test_conversations_can_be_read_as_plain_text(tmp_path: Path, place: str, value: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    assert guess(path).name == "chat"
    assert len(texts(path, path_layout(place))) == 1


def test_tables_and_parquet_of_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("제목,내용\n가,길고 긴 글이다\n")
    pq.write_table(pa.table({"title": ["짧은 제목"], "body": ["더 길고 자세한 글"]}), tmp_path / "b.parquet")
    for name, place in (("a.csv", "내용"), ("b.parquet", "body")):
        with pytest.raises(UserError, match=f"give the path with --text-path {place} "):
            guess(tmp_path / name)
        assert len(texts(tmp_path / name, path_layout(place))) == 1


def test_namuwiki_goes_before_plain(tmp_path: Path) -> None:
    pages = [("0", "!", "#redirect 느낌표"), ("0", "가", "'''가'''는 [[한글]]이다."), ("1", "틀", "{{{틀}}}")]
    keys = ("namespace", "title", "text")
    dump = [dict(zip(keys, row, strict=True)) for row in pages]
    (tmp_path / "namu.json").write_text(json.dumps(dump))
    (tmp_path / "namu.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in dump[:1]))
    assert guess(tmp_path).name == "namuwiki"
    assert texts(tmp_path, guess(tmp_path)) == ["가는 한글이다."]
    pq.write_table(pa.Table.from_pylist(dump), tmp_path / "namu.parquet")
    assert texts(tmp_path / "namu.parquet", guess(tmp_path / "namu.parquet")) == ["가는 한글이다."]


def test_names_of_read_mes() -> None:
    for name in ("README.txt", "00_읽어보기.txt", "이용약관(2023).txt", "LICENSE.txt", "readme.md", "변경 이력.txt"):
        assert is_read_me(name), name
    for name in ("문의하는 법.txt", "안내견.txt", "readme.json", "a.txt", "1.txt"):
        assert not is_read_me(name), name
