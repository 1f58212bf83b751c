"""`kogpt export --push`: huggingface_hub's own client against a server that answers the hub's API on this machine."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from builders import TEXTS, make_run, make_tokenizer

from kogpt.common.errors import UserError
from kogpt.hub.push import upload
from kogpt.tokenizer.wordpiece import load_tokenizer

TOKEN = "hf_a_token_that_must_not_be_printed"
NO_RIGHTS = 'You don\'t have the rights to create a model under the namespace "student"'
NO_LICENSE = '"license" must be one of [apache-2.0, mit, ...]'


class Hub(ThreadingHTTPServer):
    """The part of the hub that an upload needs: who, create, preupload, LFS, and commit. Keeps what it gets."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict[str, Any]] = []
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.broken = self.exists = self.full = self.closed = self.strict = False


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid user token."}, 401)
        if self.path != "/api/whoami-v2":  # asked after a refusal to create it
            return self._answer({"error": "Repository not found"}, 404)
        return self._answer({"name": "student", "type": "user"})

    def do_PUT(self) -> None:
        content = self._body()
        if not self.server.full:
            self.server.blobs[sha256(content).hexdigest()] = content
        self._answer({"error": "no room for more"} if self.server.full else {}, 507 if self.server.full else 200)

    def do_POST(self) -> None:
        path, body = self.path, self._body()
        if path == "/api/repos/create" and self.server.closed:
            self._answer({"error": NO_RIGHTS}, 403)
        elif path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            known = {"url": f"{self.server.address}/student/model", "name": "student/model"}
            refusal = {"error": "You already created this model repo"} if self.server.exists else {}
            self._answer(known | refusal, 409 if refusal else 200)
        elif path == "/api/validate-yaml" and self.server.strict:
            self._answer({"errors": [{"message": NO_LICENSE}], "warnings": []}, 400)
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path == "/api/models/student/model/preupload/main":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".gguf")) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": modes})
        elif path == "/student/model.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            upload = {"upload": {"href": f"{self.server.address}/blob"}}
            self._answer({"transfer": "basic", "objects": [one | {"actions": upload} for one in objects]})
        elif path == "/api/models/student/model/commit/main" and not self.server.broken:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "lfsFile":
                    self.server.files[entry["value"]["path"]] = self.server.blobs[entry["value"]["oid"]]
            self._answer({"commitUrl": f"{self.server.address}/student/model/commit/1", "commitOid": "1"})
        else:
            self._answer({"error": "out of order"}, 400)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("X-Request-Id", "Root=1-67c5246c")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def export(run: Path, folder: Path, address: str, *more: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """`kogpt export`, in a process and a home of its own."""
    start = [sys.executable, "-c", "from kogpt.cli import main; main()"]
    command = [*start, "export", str(run), str(folder), "--push", "student/model", *more]
    return at_home(command, folder.parent / "home", address, token)


def at_home(command: list[str], home: Path, address: str, token: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, because huggingface_hub reads the environment once."""
    env = os.environ | {"HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    env |= {"HF_HOME": str(home)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_the_folder_is_on_the_hub_and_private(hub: Hub, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    folder = tmp_path / "exported"
    done = export(run, folder, hub.address, "--license", "cc-by-sa-4.0")
    assert done.returncode == 0, done.stderr
    assert f"Uploaded to {hub.address}/student/model" in done.stdout
    assert "from_pretrained('student/model')" in done.stdout
    (created,) = hub.created
    assert (created["organization"], created["name"]) == ("student", "model")
    assert created.get("visibility") == "private" or created.get("private") is True
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    card = hub.files["README.md"].decode()
    assert "license: cc-by-sa-4.0" in card
    assert "chat_template" in json.loads(hub.files["tokenizer_config.json"])
    assert TOKEN not in done.stdout + done.stderr


def test_a_repository_that_exists_gets_the_files_after_a_login(hub: Hub, tmp_path: Path) -> None:
    """With the token that `hf auth login` saved, and without HF_TOKEN."""
    hub.exists = True
    login = [sys.executable, str(Path(sys.executable).with_name("hf")), "auth", "login", "--token", TOKEN]
    assert at_home(login, tmp_path / "home", hub.address, "").returncode == 0
    done = export(make_run(tmp_path / "run"), tmp_path / "exported", hub.address, "--license", "mit", token="")
    assert done.returncode == 0, done.stderr
    assert f"Uploaded to {hub.address}/student/model" in done.stdout
    assert hub.files == {path.name: path.read_bytes() for path in (tmp_path / "exported").iterdir()}


def test_what_stops_an_upload_is_said_before_the_export_or_leaves_it_whole(hub: Hub, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    folder = tmp_path / "exported"
    wrong = export(run, folder, hub.address, token="hf_wrong")
    assert (wrong.returncode, folder.exists()) == (2, False)
    assert "hf auth login" in wrong.stderr
    hub.broken = True
    broken = export(run, folder, hub.address)
    assert broken.returncode == 2
    assert (
        f"(out of order); once that is mended, upload it with `hf upload --private student/model {folder}`"
        in broken.stderr
    )
    assert (folder / "model.safetensors").exists()
    hub.full = True
    full = export(run, tmp_path / "again", hub.address)
    assert full.returncode == 2
    assert "(no room for more)" in full.stderr, "what the hub answered"
    assert f"`hf upload --private student/model {tmp_path / 'again'}`" in full.stderr
    assert not hub.files
    for said in (wrong.stderr, broken.stderr, full.stderr):
        assert len(said.strip().splitlines()[-1]) > 40
        assert "Traceback" not in said
        assert "hf_wrong" not in said


@pytest.mark.parametrize(("refusal", "sentence"), [("closed", NO_RIGHTS), ("strict", NO_LICENSE)])
def test_a_refusal_is_told_in_the_words_of_the_hub(
    refusal: str, sentence: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that may only read, and a license that the hub does not know."""
    from huggingface_hub import HfApi

    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(hub.address, TOKEN))
    setattr(hub, refusal, True)
    (tmp_path / "README.md").write_text("---\nlicense: mine\n---\n")
    with pytest.raises(UserError) as raised:
        upload(tmp_path, "student/model")
    assert f"was not uploaded to student/model ({sentence}); once that is mended" in str(raised.value)
    assert not hub.files


def test_a_vocabulary_of_others_needs_a_license(tmp_path: Path) -> None:
    make_tokenizer(TEXTS * 3).save(tmp_path / "KR-Medium")
    foreign = load_tokenizer(str(tmp_path / "KR-Medium"), spacing="original", analyzer={"name": "none"})
    done = export(make_run(tmp_path / "run", foreign), tmp_path / "exported", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "the vocabulary comes from KR-Medium" in done.stderr
    assert "--license" in done.stderr
    assert not (tmp_path / "exported").exists()


def test_no_token_and_no_name_are_refused(kogpt: Any, run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for name, said in (
        ("model", "USER/NAME"),
        ("a/b/c", "USER/NAME"),
        ("student/내 모델", "USER/NAME"),
        ("student/model", "HF_TOKEN"),
    ):
        done = kogpt("export", run, tmp_path / "exported", "--push", name, "--license", "mit")
        assert (done.returncode, said in done.stderr) == (2, True)
        assert not (tmp_path / "exported").exists()
