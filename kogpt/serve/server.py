"""`kogpt serve`: load a run, listen, answer until SIGTERM or Ctrl-C. In: a run folder and an address.

The port answers as soon as the run is loaded. /health says 503 until Kkma is started and a token has been generated. At
SIGTERM or Ctrl-C new connections are refused, and answers under way end, within GRACE seconds. A second Ctrl-C ends at
once.

Whoever can reach the port can use the model. Without a key it is therefore bound to this machine alone: for another
host a key is needed, and made if none is given.
"""

import asyncio
import logging
import math
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI

from kogpt.checkpoint.choose import Wish
from kogpt.checkpoint.load import LoadedRun, load_for_inference
from kogpt.common import system
from kogpt.common.device import choose_device, has_bf16
from kogpt.common.errors import UserError
from kogpt.generate.chat import is_taught
from kogpt.serve.app import create_app
from kogpt.serve.gate import LOOPBACK, host_name
from kogpt.serve.service import Service
from kogpt.tokenizer.codec import TextCodec

log = logging.getLogger(__name__)

GRACE = 30
"""Seconds that answers under way get at the end."""
PLACES, QUEUE = 32, 256
"""Answers that are generated together at most, and that wait."""
CACHE_BYTES = 2 * 2**30
"""Limit for the KV cache of all places."""


def open_service(loaded: LoadedRun, name: str) -> Service:
    """The service of a loaded run. On a GPU it computes in bf16, if the GPU has it."""
    model = loaded.model
    if model.device.type == "cuda" and has_bf16(model.device):
        model = model.to(torch.bfloat16)
    row_bytes = 2 * math.prod(model.config.kv_cache_shape(1)) * model.dtype.itemsize
    codec = TextCodec(loaded.tokenizer_folder)
    places = max(1, min(PLACES, CACHE_BYTES // row_bytes))
    return Service(model, codec, name=name, answers_chat=is_taught(loaded, codec.tokenizer), places=places, queue=QUEUE)


def run_name(folder: Path) -> str:
    """The name of the model for clients: that of the run folder, also for one of its checkpoints."""
    folder = folder.resolve()
    return (folder.parent.parent if folder.parent.name == "checkpoints" else folder).name


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ip_address(host_name(host)).is_loopback
    except ValueError:
        return host_name(host) == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at the address. Raises `UserError` if it cannot be had."""
    try:
        name = host_name(host) or "(empty)"  # which is no address; an empty one would be all of them
        family, kind, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UserError(f"--host {host} is no address of this machine; give 127.0.0.1, 0.0.0.0, or its name.") from None
    try:
        found = socket.socket(family, kind)
        try:
            if not system.SHARES_PORTS:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen()  # until then, another program can have the same port
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port} cannot be used ({error.strerror}); give another port, or 0 for any free one."
        ) from None
    return found


def serve(
    run: Path, *, host: str, port: int, api_key: str | None, cors: Sequence[str], checkpoint: Wish, device: str | None
) -> None:
    """Serve a run until SIGTERM or Ctrl-C. Raises `UserError` for a run, address, or analyzer that cannot be used."""
    local = is_loopback(host)
    key = api_key.strip() if api_key is not None else None if local else secrets.token_urlsafe(24)
    if key == "":
        raise UserError("--api-key is empty; give a key, or leave the flag out.")
    if key and not (key.isascii() and key.isprintable()):
        raise UserError("--api-key has characters that clients cannot send in a header; use letters and digits.")
    listening = bind(host, port)
    service = open_service(load_for_inference(run, choose_device(device), checkpoint), run_name(run))
    name = host_name(host)
    shown = f"[{name}]" if ":" in name else name
    address = f"http://{shown}:{listening.getsockname()[1]}"
    failure: list[BaseException] = []

    async def get_ready() -> None:
        try:
            await service.warm()
        except Exception as error:
            failure.append(error)
            server.should_exit = True
            return
        what = "" if service.answers_chat else " (it only continues texts; docs/chat.md says how to teach it to answer)"
        log.info("%s is ready%s. Open %s/ or point an OpenAI client to %s/v1", service.name, what, address, address)
        if key and api_key is None:
            log.info("The API key, which the page asks for and clients send: %s", key)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(get_ready())
        try:
            yield
        finally:
            warming.cancel()

    app = create_app(service, hosts={*LOOPBACK, name} if local else None, key=key, origins=cors, lifespan=lifespan)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE)
    )
    log.info("Loading the analyzer of %s ...", service.name)
    try:
        server.run(sockets=[listening])
    finally:
        service.close(1.0)
        listening.close()
    if failure:
        raise failure[0]
