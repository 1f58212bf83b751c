"""An S3 server in this process for tests: moto's, in a thread, on a port of its own, which can be away or hang.

In: nothing. Out: a `Store` with a bucket, and the environment in which clients find it.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

_numbers = itertools.count()


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        pass


class Store:
    """A bucket of an S3 server."""

    def __init__(self) -> None:
        self.bucket = f"bucket-{next(_numbers)}"
        self.requests: list[tuple[str, str]] = []
        self.held: Callable[[str, str], bool] = lambda method, path: False
        """Which requests get no answer until `release`."""
        self.release = threading.Event()
        self.refused: Callable[[str, str], tuple[str, str] | None] = lambda method, path: None
        """The HTTP status and S3's code for requests that are refused."""
        self.port = 0
        self._server: BaseWSGIServer | None = None
        self._app = DomainDispatcherApplication(create_backend_app)
        self.start()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "ourkey",
            "AWS_SECRET_ACCESS_KEY": "oursecret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        request = (environ["REQUEST_METHOD"], environ["PATH_INFO"])
        self.requests.append(request)
        if self.held(*request):
            self.release.wait(60)
        if (refusal := self.refused(*request)) is not None:
            status, code = refusal
            start_response(status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>{code} says the server</Message></Error>".encode()]
        return self._app(environ, start_response)

    def start(self) -> None:
        """Listen, after `stop` on the same port and with the same objects."""
        self._server = make_server("127.0.0.1", self.port, self._answer, True, request_handler=_Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    @property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"])

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=name, Body=content)

    def put_folder(self, folder: Path, name: str) -> None:
        """Every file below a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def names(self, prefix: str = "") -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return [entry["Key"].removeprefix(prefix) for entry in found]

    def get(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read()

    def delete(self, prefix: str) -> None:
        for name in self.names(prefix):
            self.client.delete_object(Bucket=self.bucket, Key=f"{prefix}{name}")


@contextmanager
def store(home: Path) -> Iterator[Store]:
    """A server with an empty bucket, which this process and those that it starts find in their environment."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Store()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**server.environment, "HOME": str(home)}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3fs.S3FileSystem.clear_instance_cache()
        server.client.create_bucket(Bucket=server.bucket)
        try:
            yield server
        finally:
            server.release.set()
            if server._server is not None:
                server.stop()
            s3fs.S3FileSystem.clear_instance_cache()
