"""Tables, WikiExtractor, CoNLL-U, and large JSON: the parsed values, and what is lost in a damaged file."""

import io
import json
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess import parsers
from preprocess.layouts import named_layout
from preprocess.parsers import values
from preprocess.streams import Broken

PLAIN = named_layout("plain")


def parsed(name: str, content: bytes | str) -> list[Any]:
    """The values in a file, or (reason, detail) for a broken part."""
    stream = io.BytesIO(content if isinstance(content, bytes) else content.encode())
    found: list[Any] = []
    try:
        for value in values(name, stream, PLAIN):
            found.append((value.reason, value.detail) if isinstance(value, Broken) else value)
    except Broken as broken:
        found.append((broken.reason, broken.detail))
    return found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_csv_with_quotes_lines_and_korean_names(encoding: str) -> None:
    content = '작성일,내용\r\n2016-01-06,"첫 줄\r\n둘째 ""줄"", 끝"\r\n\r\n2016-01-07,글,\r\n2016,a,b\r\n'
    assert parsed("a.csv", content.encode(encoding)) == [
        {"작성일": "2016-01-06", "내용": '첫 줄\r\n둘째 "줄", 끝'},
        {"작성일": "2016-01-07", "내용": "글"},
        ("broken row", "3 columns under a header of 2"),
    ]


def test_tsv_takes_quotes_as_they_are() -> None:
    content = 'id\tText\n1\t"열린 따옴표\n2\t가 "나" 다\n3\t"모두 ""인용"" 됨"\n4\n'
    assert parsed("a.tsv", content) == [
        {"id": "1", "Text": '"열린 따옴표'},
        {"id": "2", "Text": '가 "나" 다'},
        {"id": "3", "Text": '모두 "인용" 됨'},
        ("broken row", "1 columns under a header of 2"),
    ]
    assert parsed("a.csv", "id\ttext\n1\t글, 또\n") == [{"id": "1", "text": "글, 또"}]


def test_row_that_is_no_text_costs_itself_and_a_long_cell_nothing() -> None:
    long = "긴 글 " * 100_000
    content = b"text\n" + long.encode() + b"\n\xff\xff\n" + "끝\n".encode()
    found = parsed("a.csv", content)
    assert found == [{"text": long}, ("unknown encoding", "a row is neither UTF-8 nor cp949"), {"text": "끝"}]
    assert parsed("a.csv", b"") == []


WIKI = """<doc id="1" url="https://ko.wikipedia.org/wiki?curid=1" title="토막글">
토막글



</doc>
<doc id="2" url="u" title="글">
글

본문 &lt;3 &amp;amp;

둘째.
</doc>
"""


def test_wikiextractor_without_an_ending() -> None:
    assert parsed("wiki_00", WIKI) == ["", "글\n\n본문 <3 &amp;\n\n둘째."]
    assert parsed("AA/wiki_01", WIKI[:-8])[1:] == [("unreadable file", "its last <doc> does not end")]
    assert parsed("wiki_00", '{"id": "1", "text": "글"}\n') == [{"id": "1", "text": "글"}]
    assert parsed("Makefile", "all:\n")[0][0] == "unknown file type"
    assert parsed("empty", "")[0][0] == "unknown file type"


def test_conllu_sentences_are_put_together_by_document() -> None:
    sentences = [("A_1-s1", "하나."), ("A_1-s2", "둘."), ("A_2-s1", "셋.")]
    content = "\n".join(f"# sent_id = {id}\n# text = {text}\n1\t{text}\t_\n" for id, text in sentences)
    assert parsed("a.conllu", content) == ["하나. 둘.", "셋."]
    assert parsed("a.conllu", f"# newdoc id = x\n{content}\n# newdoc\n# text = 넷.") == ["하나. 둘. 셋.", "넷."]
    klue = "## 주석 : ##\n## dp_1\t한 문장.\n1\t한\n\n## dp_2\t다른 문장.\n"
    assert parsed("klue.tsv", klue) == ["한 문장.", "다른 문장."]


def big_list(count: int) -> list[Any]:
    rng = random.Random(count)
    return [rng.choice([{"text": "글 " * rng.randint(0, 40), "n": [1, {"x": None}]}, {"text": "\ud83d"}, 12, [], "x"])
            for _ in range(count)]  # fmt: skip


@pytest.mark.parametrize("large", [4, 7, 64, 1000])
@pytest.mark.parametrize("ascii", [True, False])
def test_large_list_is_read_element_by_element(monkeypatch: pytest.MonkeyPatch, large: int, ascii: bool) -> None:
    value = big_list(60)
    if not ascii:
        value = [element for element in value if element != {"text": "\ud83d"}]
    monkeypatch.setattr(parsers, "LARGE_JSON", large)
    for encoding in ("utf-8", "utf-8-sig", "cp949"):
        if encoding == "cp949" and not ascii and large < 1000:
            continue  # too short to tell the encoding by
        content = json.dumps(value, ensure_ascii=ascii, indent=random.Random(large).choice([None, 1])).encode(encoding)
        assert parsed("a.json", content) == [[element] for element in value]
    assert parsed("a.json", b'{"text": "' + b"x" * 2000 + b'"}') == [{"text": "x" * 2000}]


def test_large_list_that_is_cut_keeps_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "LARGE_JSON", 10)
    assert parsed("a.json", '[{"text": "하나"}, {"text": "둘"}, {"te')[:2] == [[{"text": "하나"}], [{"text": "둘"}]]
    assert parsed("a.json", '[{"text": "하나"}, {"text": "둘"}, {"te')[2][0] == "broken JSON"


def test_what_has_to_be_read_whole_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "MAX_WHOLE", 100)
    monkeypatch.setattr(parsers, "LARGE_JSON", 10)
    assert parsed("a.txt", "x" * 100) == ["x" * 100]
    assert parsed("a.txt", "x" * 101)[0][0] == "too large"
    assert parsed("a.json", json.dumps({"text": "x" * 101}))[0][0] == "too large"
    assert len(parsed("a.jsonl", '{"text": 1}\n' * 100)) == 100


def test_parquet_with_other_columns_says_which() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"question": ["짧은 물음"], "answer": ["더 길고 자세한 답"], "n": [1]}), buffer)
    with pytest.raises(Broken) as caught:
        list(values("a.parquet", buffer, PLAIN))
    assert caught.value.detail == "looked for text; found question, answer, n"
    assert caught.value.mend == "give the path with --text-path answer (or question)"
