"""A W&B server on this machine, as far as its real client asks for one when a training is logged online.

    with wandb_server() as server:
        WANDB_BASE_URL=server.url WANDB_API_KEY=server.key python ...
        server.runs["a1b2c3d4"].history      # the lines that wandb-core has sent, in their order

It answers GraphQL (`/graphql`: who am I, create or find a run, where to upload, artifacts, alerts), the stream of
history, summary, and console (`/files/.../file_stream`), and uploads. A wrong key gets 401. `server.away = True` makes
it answer 503 to everything, as a proxy does whose server is gone.
"""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY, PROJECT = "someone", "kogpt-test"


@dataclass
class OnlineRun:
    """What the server knows of a run."""

    files: dict[str, dict[int, str]] = field(default_factory=dict)
    """By name the lines of what is streamed, by their number"""
    config: dict[str, Any] = field(default_factory=dict)
    sweep: str | None = None
    exit_code: int | None = None
    starts: int = 0

    def lines(self, name: str) -> list[str]:
        """The lines of a streamed file."""
        return [line for _, line in sorted(self.files.get(name, {}).items())]

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged; a client that logs a step twice has it here twice."""
        return [json.loads(line) for line in self.lines("wandb-history.jsonl")]

    @property
    def summary(self) -> dict[str, Any]:
        """The last summary."""
        return json.loads((self.lines("wandb-summary.json") or ["{}"])[-1])


class WandbServer:
    """The state of the server; `url` and `key` are for its clients."""

    key = "k" * 40

    def __init__(self, url: str) -> None:
        self.url, self.away = url, False
        self.runs: dict[str, OnlineRun] = {}
        self.uploads: dict[str, bytes] = {}
        self.alerts: list[dict[str, Any]] = []
        self.sweeps: list[dict[str, Any]] = []
        self.turned_away = 0

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """A piece of what a run streams."""
        run = self.runs[name]
        for file, piece in sent.get("files", {}).items():
            lines = run.files.setdefault(file, {})
            lines.update(enumerate(piece["content"], piece["offset"]))
        if sent.get("complete"):
            run.exit_code = sent["exitcode"]

    def graphql(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data that answers a query; `given` are its variables."""
        [name] = re.findall(r"(?:query|mutation)\s+(\w+)", query)[:1]
        answer = getattr(self, f"_{name}", None)
        return answer(given) if answer else {}

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        if (run := self.runs.get(given["name"])) is None:
            return {"model": {"id": "1", "name": PROJECT, "entity": {"id": "1", "name": ENTITY}, "bucket": None}}
        history, events = run.lines("wandb-history.jsonl"), run.lines("wandb-events.jsonl")
        bucket = {
            "id": given["name"],
            "name": given["name"],
            "displayName": given["name"],
            "tags": [],
            "notes": None,
            "summaryMetrics": json.dumps(run.summary),
            "config": json.dumps(run.config),
            "wandbConfig": '{"t": 1}',
            "historyLineCount": len(history),
            "historyTail": json.dumps(history[-1:]),
            "eventsLineCount": len(events),
            "eventsTail": json.dumps(events[-1:]),
            "logLineCount": len(run.lines("output.log")),
        }
        return {"model": {"id": "1", "name": PROJECT, "entity": {"id": "1", "name": ENTITY}, "bucket": bucket}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        inserted = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], OnlineRun())
        run.starts += given["displayName"] is not None  # a later one only changes the configuration
        run.config, run.sweep = json.loads(given["config"] or "{}"), given["sweep"] or run.sweep
        bucket = {"id": given["name"], "name": given["name"], "displayName": given["displayName"], "config": "{}"}
        bucket |= {"sweepName": run.sweep, "historyLineCount": len(run.history), "description": None}
        bucket["project"] = {"id": "1", "name": PROJECT, "entity": {"id": "1", "name": ENTITY}}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": self._place(f"{given['run']}/{name}")} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        artifact = {"id": given["input"]["digest"], "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        place = self._place(f"{given['artifactID']}/{given['name']}")
        file = {"id": "1", "uploadUrl": place, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": given["artifactID"], "file": file}}}

    def _UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        place = self._place(f"{given['artifactManifestID']}/manifest.json")
        file = {"id": "1", "uploadUrl": place, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": given["artifactManifestID"], "file": file}}}

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": one["name"],
                "uploadUrl": self._place(f"{one['artifactID']}/{one['name']}"),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": one["artifactID"]},
            }
            for one in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": given["artifactID"]}}}

    def _NotifyScriptableRunAlert(self, given: dict[str, Any]) -> dict[str, Any]:
        self.alerts.append(given)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _UpsertSweep(self, given: dict[str, Any]) -> dict[str, Any]:
        self.sweeps.append(given)
        sweep = {"name": "sweep1", "project": {"id": "1", "name": PROJECT, "entity": {"id": "1", "name": ENTITY}}}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _place(self, name: str) -> str:
        return f"{self.url}/uploads/{name}"


class _Handler(BaseHTTPRequestHandler):
    """One request. The class of a server's own has its state as `state`."""

    state: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content = self._answer(body)
        answer = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _answer(self, body: bytes) -> tuple[int, Any]:
        state, parts = self.state, self.path.strip("/").split("/")
        if state.away:
            state.turned_away += 1
            return 503, {"error": "away"}
        if parts[0] == "uploads":
            state.uploads["/".join(parts[1:])] = body
            return 200, {}
        if parts[0] == "sdk":  # the client's own statistics
            return 200, {}
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(f"api:{state.key}".encode()).decode():
            return 401, {"errors": [{"message": "user is not logged in"}]}
        if parts == ["graphql"]:
            asked = json.loads(body)
            return 200, {"data": state.graphql(asked["query"], asked.get("variables") or {})}
        if parts[-1] == "file_stream":
            state.stream(parts[-2], json.loads(body))
        return 200, {}

    do_GET = do_POST = do_PUT = _handle


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed."""


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """The server on a free port of this machine, until the block ends."""
    handler: type[_Handler] = type("Handler", (_Handler,), {})
    http = _Http(("127.0.0.1", 0), handler)
    handler.state = WandbServer(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield handler.state
    finally:
        http.shutdown()
        http.server_close()
