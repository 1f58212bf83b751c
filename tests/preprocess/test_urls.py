"""Files on a server that are complete, truncated, refused, or of any size. A failure affects only its own file."""

import io
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pipelines import articles_in

from preprocess.documents import Document, Dropped, read_documents
from preprocess.layouts import named_layout
from preprocess.reading import Readers, Reading
from preprocess.scan import Scan
from preprocess.sources import find_sources
from preprocess.units import Store

_zip = io.BytesIO()
with zipfile.ZipFile(_zip, "w") as archive:
    archive.writestr("1.json", '{"text": "압축"}')
FILES = {
    "/a.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "/b/cut.jsonl": b'{"text": "three"}\n' * 3,
    "/b/c.zip": _zip.getvalue(),
    "/d.jsonl": b'{"text": "last"}\n',
    **{f"/large/{a}.jsonl": b"".join(b'{"text": "%c %d"}\n' % (ord(a), i) for i in range(9)) for a in "abc"},
}


class _Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path not in FILES:
            self.send_error(403 if "forbidden" in path else 404)
            return
        self.send_response(200)
        if "unsized" in self.path:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(FILES[path])))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(FILES[path][: 10 if "cut" in path else None])
        self.close_connection |= "cut" in path

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pages_of_one_address_are_files_of_their_own(server: str) -> None:
    sources = find_sources(tuple(f"{server}/a.jsonl?page={n}" for n in (1, 2)))
    assert [
        (article.id, getattr(article, "text", None)) for article in read_documents(sources, named_layout("plain"))
    ] == [(f"{name}#{i}", text) for name in ("a.jsonl", "a.jsonl~2") for i, text in enumerate(("one", "two"))]


def test_what_a_server_does_not_give_costs_itself(server: str) -> None:
    paths = ("a.jsonl", "b/cut.jsonl", "b/c.zip", "forbidden.jsonl", "nowhere.jsonl", "d.jsonl?token=x")
    sources = find_sources(tuple(f"{server}/{path}" for path in paths))
    articles = list(articles_in(sources, named_layout("plain")))
    assert {article.id: article.text for article in articles if isinstance(article, Document)} == {
        "a.jsonl#0": "one",
        "a.jsonl#1": "two",
        "b/c.zip/1.json#0": "압축",
        "d.jsonl#0": "last",
    }
    dropped = {article.source: (article.reason, article.detail) for article in articles if isinstance(article, Dropped)}
    assert dropped.pop("b/cut.jsonl")[0] == "unreadable file"
    assert dropped == {
        "forbidden.jsonl": ("unreadable file", "HTTP status 403"),
        "nowhere.jsonl": ("unreadable file", "HTTP status 404"),
    }


def test_every_large_file_is_read_once_and_whole(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server gives no ranges, says nothing of the content, and need not say the size."""
    monkeypatch.setattr("preprocess.spans.SPAN_BYTES", 50)
    sources = find_sources(tuple(f"{server}/large/{path}" for path in ("a.jsonl", "b.jsonl", "c.jsonl?unsized")))
    readers = Readers(Reading(named_layout("plain"), ()), sources, Store(tmp_path), actors=False)
    assert len(readers.spans) == 3
    found = Scan(readers.outlines(), readers._store, {}).finish()
    assert found.rows(found.units)["id"].to_pylist() == [f"{name}.jsonl#{i}" for name in "abc" for i in range(9)]
    assert not found.dropped


def test_a_server_that_is_gone_costs_its_files() -> None:
    (source,) = find_sources(("http://127.0.0.1:1/a.jsonl",))
    ((name, problem),) = source.members()
    assert name == "a.jsonl"
    assert isinstance(problem, OSError)
