"""Who may ask: Host headers, keys, other origins, and sizes of bodies."""

import mimetypes
import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from servers import client, http, service_of, serving

from kogpt.serve.app import STATIC
from kogpt.serve.gate import BODY_BYTES, LOOPBACK, host_name

BODY = {"messages": [{"role": "user", "content": "안녕?"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def guarded(talker_run: Path) -> Iterator[str]:
    """A server with a key, for this machine only, that one other origin may ask."""
    options = {"key": "비밀-key", "hosts": LOOPBACK, "origins": ["http://friend.example"]}
    with serving(service_of(talker_run), **options) as address:
        yield address


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost:8000", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("::1", "::1"),
        ("LocalHost.", "localhost"),
        ("127.0.0.1.evil.example:80", "127.0.0.1.evil.example"),
        ("", ""),
    ],
)
def test_names_of_hosts(host: str, name: str) -> None:
    assert host_name(host) == name


def test_a_name_that_was_bound_to_this_machine_is_refused(guarded: str) -> None:
    port = guarded.rsplit(":", 1)[1]
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "", "127.0.0.1@evil.example"):
        for path in ("/", "/health", "/v1/models"):
            assert http.get(guarded + path, headers={"Host": host}).status_code == 403, host
    for host in (f"localhost:{port}", f"[::1]:{port}", "127.0.0.1"):
        assert http.get(f"{guarded}/health", headers={"Host": host}).status_code == 200


def test_the_key_opens_the_api_and_nothing_else_does(guarded: str) -> None:
    for key in ("x", "비밀", "비밀-keyx"):
        headers = {b"Authorization": f"Bearer {key}".encode()}
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            refused = http.get(guarded + path, headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        client(guarded, "wrong").models.list()
    right = {b"Authorization": "Bearer 비밀-key".encode()}
    assert http.post(f"{guarded}/v1/chat/completions", json=BODY, headers=right).status_code == 200
    assert http.get(f"{guarded}/health").status_code == 200
    assert http.get(f"{guarded}/").status_code == 200  # the page asks for the key


def test_without_a_key_any_is_accepted(talker: str) -> None:
    for key in ("any", "sk-1234"):
        assert client(talker, key).models.list().data


def test_other_origins_may_ask_only_if_named(guarded: str, talker: str) -> None:
    for address, origin, allowed in (
        (guarded, "http://friend.example", True),
        (guarded, "http://evil.example", False),
        (talker, "http://friend.example", False),
    ):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asked = http.options(f"{address}/v1/chat/completions", headers=headers)
        assert ("access-control-allow-origin" in asked.headers) == allowed
        assert ("access-control-allow-origin" in http.get(f"{address}/health", headers=headers).headers) == allowed
    # what a page may send without asking first is not understood
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = http.post(f"{talker}/v1/chat/completions", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415


def test_a_body_has_a_limit_announced_or_not(talker: str) -> None:
    post = f"{talker}/v1/chat/completions"
    headers = {"Content-Type": "application/json"}
    whole = http.post(post, content=b" " * (BODY_BYTES + 1), headers=headers)
    assert (whole.status_code, whole.json()["error"]["code"]) == (413, "body_too_large")
    parts = http.post(post, content=(b" " * 65536 for _ in range(17)), headers=headers)
    assert parts.status_code == 413


def test_no_answer_is_taken_for_html(talker: str, guarded: str) -> None:
    answers = [
        http.post(f"{talker}/v1/chat/completions", json=BODY),
        http.post(f"{talker}/v1/chat/completions", json=BODY | {"stream": True}),
        http.get(f"{talker}/v1/models/<script>alert(1)<%2Fscript>"),
        http.get(f"{guarded}/v1/models"),
    ]
    for answer in answers:
        assert answer.headers["Content-Type"].startswith(("application/json", "text/event-stream"))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    page = http.get(f"{talker}/")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]


def test_the_page_s_files_are_what_their_names_say(talker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system has another opinion: the registry of Windows often has scripts as plain text."""
    mimetypes.init()
    for suffix in (".js", ".css", ".svg", ".html"):
        monkeypatch.setitem(mimetypes.types_map, suffix, "text/plain")
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for file in STATIC.iterdir():
        assert http.get(f"{talker}/{file.name}").headers["Content-Type"] == f"{kinds[file.suffix]}; charset=utf-8"


def test_errors_tell_nothing_about_the_machine(talker: str, talker_run: Path) -> None:
    for path in ("/static/../../cli.py", "/..%2f..%2fcli.py", "/%2e%2e/app.py", "/v1/models/..%2f..", "//etc/passwd"):
        with socket.create_connection(("127.0.0.1", int(talker.rsplit(":", 1)[1]))) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert b" 200 " not in answer.split(b"\r\n")[0], path
        assert str(talker_run.parent).encode() not in answer
        assert b"import" not in answer


def test_an_unexpected_fault_is_500_without_details(talker_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = service_of(talker_run)
    with serving(service) as address:
        service.codec.__dict__["encode"] = lambda text: 1 / 0
        answer = http.post(f"{address}/v1/chat/completions", json=BODY)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert "division" not in answer.text
