"""Measure reading the same files from a folder and from an S3 server, by one process: bytes and CPU.

The server is moto's in a process of its own, on loopback, once as it is and once with `--delay` before each answer, as
a distant store has it. "Large" are files of 16 MiB, "small" are 200 of 10 KiB. Everything is measured in turn, after a
first pass that is not counted.

    python bench/object_store.py [--mebibytes 64] [--delay 0.03] [--json FILE]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, whose preprocess.py would be found
from preprocess.remote import file_system  # noqa: E402
from preprocess.sources import find_sources  # noqa: E402

_SERVER = """
import logging, sys, time
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
logging.getLogger("werkzeug").setLevel(logging.ERROR)
WSGIRequestHandler.protocol_version = "HTTP/1.1"
app, delay = DomainDispatcherApplication(create_backend_app), float(sys.argv[1])
def answer(environ, start_response):
    time.sleep(delay if environ["REQUEST_METHOD"] in ("GET", "HEAD") else 0)
    return app(environ, start_response)
server = make_server("127.0.0.1", 0, answer, True)
print(server.server_port, flush=True)
server.serve_forever()
"""
_LARGE, _SMALL, _SMALL_COUNT = 16 << 20, 10 << 10, 200


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    mebibytes: int = 64
    """Size of the large files together."""
    delay: float = 0.03
    """Seconds before each answer of the distant server."""
    rounds: int = 3
    """Passes that are counted; the fastest is shown."""
    json: Path | None = None
    """Write the numbers to this file as well."""


@contextmanager
def server(delay: float, folder: Path) -> Iterator[None]:
    """An S3 server with the files of the folder in s3://bench, named by the environment."""
    process = subprocess.Popen([sys.executable, "-c", _SERVER, str(delay)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{int(process.stdout.readline())}"
        os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_DEFAULT_REGION="us-east-1")
        files, _ = file_system("s3://bench")
        type(files).clear_instance_cache()
        files, _ = file_system("s3://bench")
        files.mkdir("bench")
        for path in sorted(folder.rglob("*.txt")):
            files.put_file(str(path), f"bench/{path.relative_to(folder)}")
        yield
    finally:
        process.kill()
        process.wait()


def read(place: str) -> tuple[float, float]:
    """(wall, CPU seconds of this process) of reading everything there."""
    wall, cpu = time.perf_counter(), time.process_time()
    for source in find_sources((place,)):
        for _, stream in source.members():
            assert not isinstance(stream, Exception)
            while stream.read(1 << 16):
                pass
    return time.perf_counter() - wall, time.process_time() - cpu


def measured(name: str, place: str, options: Arguments) -> dict[str, Any]:
    """The fastest of some passes."""
    large = min(read(f"{place}/large") for _ in range(options.rounds + 1))
    small = min(read(f"{place}/small") for _ in range(options.rounds + 1))
    size = options.mebibytes << 20
    return {
        "from": name,
        "large_mb_per_second": size / large[0] / 1e6,
        "large_cpu_ms_per_mb": 1000 * large[1] / size * 1e6,
        "small_per_second": _SMALL_COUNT / small[0],
        "small_cpu_ms_each": 1000 * small[1] / _SMALL_COUNT,
    }


def main(options: Arguments) -> None:
    """Write the files, read them from three places, and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, count, size in (
            ("large", (options.mebibytes << 20) // _LARGE, _LARGE),
            ("small", _SMALL_COUNT, _SMALL),
        ):
            (folder / kind).mkdir()
            for i in range(count):
                (folder / kind / f"{i:05}.txt").write_bytes(os.urandom(size))
        rows = [measured("a folder", name, options)]
        for where, delay in (("S3 on loopback", 0.0), (f"S3, {1000 * options.delay:.0f} ms away", options.delay)):
            with server(delay, folder):
                rows.append(measured(where, "s3://bench", options))
    table = Table(title=f"{options.mebibytes} MiB in files of 16 MiB, and {_SMALL_COUNT} files of 10 KiB; one process")
    for column in ("from", "MB/s", "CPU ms/MB", "small files/s", "CPU ms each"):
        table.add_column(column, justify="left" if column == "from" else "right")
    for row in rows:
        table.add_row(row["from"], *(f"{value:,.2f}" for value in list(row.values())[1:]))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
