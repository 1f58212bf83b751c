"""A server in this process for tests: uvicorn in a thread, on a port of its own. In: a `Service`. Out: its address."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from openai import OpenAI

from kogpt.checkpoint.load import load_for_inference
from kogpt.serve.app import create_app
from kogpt.serve.server import open_service, run_name
from kogpt.serve.service import Service

http = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
"""For requests without the `openai` package: with its patience, and a connection for each, as servers come and go."""


def wait_until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Poll, and fail at the limit."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


@contextmanager
def serving(service: Service, *, warm: bool = True, port: int = 0, **options: Any) -> Iterator[str]:
    """The address of the service's app while it runs; `options` are those of `create_app`. Port 0: a free one."""

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        if warm:
            await service.warm()
        yield

    listening = socket.create_server(("127.0.0.1", port))
    app = create_app(service, lifespan=lifespan, **options)
    # On a busy machine a client may leave its connection idle for longer than the usual 5 seconds.
    config = uvicorn.Config(
        app, log_level="error", access_log=False, timeout_graceful_shutdown=5, timeout_keep_alive=60
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        service.close(5)


def service_of(run: Path) -> Service:
    """The service of a run folder, on the CPU."""
    return open_service(load_for_inference(run), run_name(run))


def client(address: str, key: str = "any") -> OpenAI:
    """The unmodified `openai` package, which must not try again what a test looks at."""
    return OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=60)
