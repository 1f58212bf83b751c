"""Documents and dropped texts, from files with the problems of real data sets."""

import gzip
import io
import json
import os
import random
import shutil
import tarfile
import unicodedata
import warnings
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pipelines import articles_in

from kogpt.common.errors import UserError
from preprocess.auto_layout import guess_layout
from preprocess.documents import Document, Dropped, read_documents
from preprocess.layouts import Layout, named_layout, path_layout
from preprocess.sources import find_sources

PLAIN = named_layout("plain")


def read(folder: Path, layout: Layout = PLAIN, limit: int | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """({id: text}, {id: reason}) of everything in a folder."""
    texts: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for article in articles_in(find_sources((str(folder),)), layout, limit):
        if isinstance(article, Document):
            texts[article.id] = article.text
        else:
            reasons[article.id] = article.reason
    return texts, reasons


def test_files_whose_names_were_made_distinct_are_read(tmp_path: Path) -> None:
    twins = [unicodedata.normalize(form, "글") for form in ("NFD", "NFC")]
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, about the second
        for i in range(2):
            archive.writestr("x.json", f'{{"text": "{i}"}}')
    content = whole.getvalue()
    for twin in twins:
        (tmp_path / f"{twin}.jsonl").write_text('{"text": "쌍둥이"}')
        (tmp_path / f"{twin}.zip.001").write_bytes(content[:90])
        (tmp_path / f"{twin}.zip.002").write_bytes(content[90:])
    (tmp_path / "p.zip").write_bytes(b"PK")
    (tmp_path / "p.zip.001").write_bytes(content)
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        packed = {"x.jsonl.gz": gzip.compress('{"text": "가"}'.encode()), "x.zip": content, "README.txt": b"?"}
        for name in (*packed, *packed):
            info = tarfile.TarInfo(name)
            info.size = len(packed[name])
            tar.addfile(info, io.BytesIO(packed[name]))
    found = read_documents(find_sources((str(tmp_path),)), PLAIN)
    known = {article.id: article.text if isinstance(article, Document) else article.reason for article in found}
    archives = ("p.zip (its parts)", "t.tar/x.zip", "t.tar/x.zip~2", "글.zip", "글.zip~2")
    assert known == {
        "p.zip#0": "unreadable file",
        **{f"{archive}/x.json{again}#0": text for archive in archives for again, text in (("", "0"), ("~2", "1"))},
        **{f"t.tar/x.jsonl.gz{again}#0": "가" for again in ("", "~2")},
        **{f"t.tar/README.txt{again}#0": "side file" for again in ("", "~2")},
        **{f"글.jsonl{again}#0": "쌍둥이" for again in ("", "~2")},
    }


def test_formats_and_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"text": "제이슨"}')
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "\xea\xb0\x80"}\n\n{"text": "\xeb\x82\x98"}\r\n')
    (tmp_path / "c.txt").write_bytes("똠방각하\r\n펲시콜라".encode("cp949"))
    (tmp_path / "d.txt").write_bytes("\ufeff바이트 순서".encode())
    pq.write_table(pa.table({"n": [1, 2], "text": ["파케이", None]}), tmp_path / "e.parquet")
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": "압축"}).encode("cp949")))
    (tmp_path / "g.json").write_text('{"text": "한 줄에"}\n{"text": "하나씩"}\n')
    (tmp_path / "h.json").write_bytes('{"text": "완성형"}'.encode("cp949"))
    (tmp_path / "i.json").write_text('[{"text": "목록"}, {"text": "둘째"}]')
    texts, reasons = read(tmp_path)
    assert texts == {
        "a.json#0": "제이슨",
        "b.jsonl#0": "가",
        "b.jsonl#1": "나",
        "c.txt#0": "똠방각하\n펲시콜라",
        "d.txt#0": "바이트 순서",
        "e.parquet#0": "파케이",
        "f.jsonl.gz#0": "압축",
        "g.json#0": "한 줄에",
        "g.json#1": "하나씩",
        "h.json#0": "완성형",
        "i.json#0": "목록",
        "i.json#1": "둘째",
    }
    assert reasons == {"e.parquet#1": "no text at the path"}


def test_a_folder_of_windows(tmp_path: Path) -> None:
    """Spaces and Hangul, CRLF, cp949 in texts and names, backslashes, and names that differ only in case."""
    folder = tmp_path / "내 글 (모음)"
    (folder / "Sub").mkdir(parents=True)
    (folder / "sub").mkdir()
    (folder / "Article.txt").write_bytes("큰\r\n글자".encode())
    (folder / "article.txt").write_bytes("작은\r\n글자".encode("cp949"))
    (folder / "Sub" / "a.jsonl").write_bytes('{"text": "첫째\\r\\n줄"}\r\n{"text": "둘째"}\r\n'.encode())
    (folder / "sub" / "a.jsonl").write_bytes('{"text": "셋째"}\r\n'.encode("cp949"))
    (folder / "a\\b.txt").write_text("역슬래시", encoding="utf-8")
    Path(os.fsdecode(os.fsencode(folder) + b"/" + "한글.txt".encode("cp949"))).write_bytes("옛 이름".encode("cp949"))
    texts, reasons = read(folder)
    named = {id: text for id, text in texts.items() if text != "옛 이름"}
    assert named == {
        "Article.txt#0": "큰\n글자",
        "article.txt#0": "작은\n글자",
        "Sub/a.jsonl#0": "첫째\n줄",
        "Sub/a.jsonl#1": "둘째",
        "sub/a.jsonl#0": "셋째",
        "a\\b.txt#0": "역슬래시",
    }
    assert (len(texts), reasons) == (7, {})


def test_every_document_that_leaves_leaves_with_a_reason(tmp_path: Path) -> None:
    lines = ['{"text": "하나"}', '{"text": "하나"}', '{"tex', '{"other": 1}', '{"text": " \\n"}', '{"text": 3}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.json").write_text('{"text": ')
    (tmp_path / "c.txt").write_bytes(b"\xff\xff\xff")
    (tmp_path / "d.pdf").write_bytes(b"%PDF")
    (tmp_path / "e.json.gz").write_bytes(gzip.compress(b'{"text": "x"}')[:-9])
    (tmp_path / "e.txt.zst").write_bytes(zstandard.compress("글".encode() * 100)[:-1])
    (tmp_path / "f.zip").write_bytes(b"PK\x03\x04 no more")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "g.parquet")
    (tmp_path / "h.parquet").write_bytes(b"PAR1")
    cp949 = pa.Array.from_buffers(pa.string(), 1, pa.array(["가가가가".encode("cp949")], pa.binary()).buffers())
    pq.write_table(pa.table({"text": cp949}), tmp_path / "k.parquet")
    (tmp_path / "i.json").write_text("[" * 100_000)
    (tmp_path / "j.txt").write_text("둘")
    texts, reasons = read(tmp_path)
    assert texts == {"a.jsonl#0": "하나", "j.txt#0": "둘"}
    assert reasons == {
        "a.jsonl#1": "duplicate",
        "a.jsonl#2": "broken JSON",
        "a.jsonl#3": "no text at the path",
        "a.jsonl#4": "empty",
        "a.jsonl#5": "no text at the path",
        "b.json#0": "broken JSON",
        "c.txt#0": "unknown encoding",
        "d.pdf#0": "unknown file type",
        "e.json.gz#0": "unreadable file",
        "e.txt.zst#0": "unreadable file",
        "f.zip#0": "unreadable file",
        "g.parquet#0": "no text at the path",
        "h.parquet#0": "unreadable file",
        "i.json#0": "broken JSON",
        "k.parquet#0": "unreadable file",
    }


def test_damaged_member_of_a_zip_costs_only_itself(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.txt", "first")
        archive.writestr("2.txt", "second")
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"first", b"f1rst"))
    assert read(tmp_path) == ({"a.zip/2.txt#0": "second"}, {"a.zip/1.txt#0": "unreadable file"})


def test_details_say_what_was_looked_for_and_found(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"Meta(Refine)": {"passage": "x"}, "Annotation": {}}')
    (article,) = articles_in(find_sources((str(tmp_path),)), named_layout("aihub-book"))
    assert isinstance(article, Dropped)
    assert article.detail == "looked for passage; found Meta(Refine), Annotation"


def test_text_is_normalised_and_what_orjson_refuses_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "\\ud83d\\u0007 \xe1\x84\x80\xe1\x85\xa1", "score": NaN}\n{"text": "raw\x01control"}\n'
    )
    first, second = articles_in(find_sources((str(tmp_path),)), PLAIN)
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert (first.text, first.removed) == (" 가", (1, 1))
    assert second.text == "rawcontrol"


def test_limit_counts_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{i // 2}"}}\n' for i in range(20)))
    texts, reasons = read(tmp_path, limit=3)
    assert list(texts.values()) == ["0", "1", "2"]
    assert len(reasons) == 2


def test_order_of_the_file_system_does_not_matter(tmp_path: Path) -> None:
    names = [f"{folder}/{i}.json" for folder in ("가", "b") for i in range(20)]
    results = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        random.Random(seed).shuffle(names)
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"text": f"{int(Path(name).stem) // 2} 번째"}))
        results.append(list(articles_in(find_sources((str(folder),)), PLAIN)))
        shutil.rmtree(folder)
    assert results[0] == results[1] == results[2]
    assert sum(isinstance(article, Document) for article in results[0]) == 10


def test_auto_says_what_it_found_and_reads_a_mixture(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i}.json").write_text(json.dumps({"Meta(Refine)": {"passage": f"보고서 {i}"}}))
    (tmp_path / "x.json").write_text(json.dumps({"passage": "책"}))
    (tmp_path / "y").mkdir()
    for i in range(10):  # in the last quarter of the files
        (tmp_path / "y" / f"{i}.json").write_text(json.dumps({"text": f"글 {i}"}))
    layout, sentence = guess_layout(find_sources((str(tmp_path),)))
    assert sentence.startswith("layout auto: aihub-book (1), aihub-582 (18), plain (5) of 24 sampled values;")
    texts, reasons = read(tmp_path, layout)
    assert set(texts.values()) == {"책", *(f"보고서 {i}" for i in range(30)), *(f"글 {i}" for i in range(10))}
    assert reasons == {}


def test_an_element_without_text_is_no_mixture(tmp_path: Path) -> None:
    elements = [{"text": "글"}, {"question": "안녕?", "answer": "안녕하세요!"}]
    (tmp_path / "a.json").write_text(json.dumps(elements))
    layout, _ = guess_layout(find_sources((str(tmp_path),)))
    assert read(tmp_path, layout) == ({"a.json#0": "글"}, {"a.json#1": "no text at the path"})


def test_auto_refuses_what_it_does_not_know_and_takes_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("글")
    assert guess_layout(find_sources((str(tmp_path),)))[1] == "layout auto: plain text (1 files sampled)"
    (tmp_path / "b.json").write_text('{"본문": "글"}')
    unknown = r"does not recognize the files \(b.json: .*found 본문\); give the path with --text-path"
    with pytest.raises(UserError, match=unknown):
        guess_layout(find_sources((str(tmp_path),)))
    assert read(tmp_path, path_layout("본문"))[0] == {"a.txt#0": "글"}
