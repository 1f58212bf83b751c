"""`kogpt serve` as a program: its start, its end, and its address."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_endless_run
from servers import client, http, wait_until

import kogpt
from kogpt.checkpoint.load import load_for_inference
from kogpt.common import system
from kogpt.common.errors import UserError
from kogpt.serve import server
from kogpt.serve.server import bind, is_loopback, run_name, serve
from kogpt.tokenizer.wordpiece import Tokenizer

ENDLESS: list[Any] = [{"role": "user", "content": "안녕?"}]


class Program:
    """`kogpt serve ... --port 0`, and what it says."""

    def __init__(self, *words: str | Path) -> None:
        # Where the tests run in the background, they ignore SIGINT, and so would every program that they start.
        listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        code = f"{listen}; from kogpt.cli import main; main()"
        command = [sys.executable, "-c", code, "serve", *map(str, words), "--port", "0"]
        environment = os.environ | {"PYTHONPATH": str(Path(kogpt.__file__).parents[1])}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)

    def address(self) -> str:
        """Where it answers, once it says so."""
        wait_until(lambda: "Open http" in "".join(self.said) or self.process.poll() is not None, 90)
        found = re.search(r"Open (http://\S+)/", "".join(self.said))
        assert found, self.said
        return found[1]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(*words: str | Path) -> Program:
        started.append(Program(*words))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def test_at_sigterm_answers_end_and_no_more_are_taken(program: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = make_endless_run(tmp_path / "talker", tokenizer, max_seq_len=2048, n_layer=1)
    server = program(run)
    address = server.address()
    assert http.get(f"{address}/health").status_code == 200
    assert "<title>kogpt</title>" in http.get(f"{address}/").text
    stream = client(address).chat.completions.create(model="talker", messages=ENDLESS, max_tokens=300, stream=True)
    chunks = iter(stream)
    next(chunks), next(chunks)
    server.process.send_signal(signal.SIGTERM)
    port = int(address.rsplit(":", 1)[1])

    def refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(refused, 20)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.count("법") >= 299, "the answer was cut"
    assert server.process.wait(60) == -signal.SIGTERM
    assert "Traceback" not in "".join(server.said)


def test_another_host_gets_a_key_and_ctrl_c_ends_it(program: Any, run: Path) -> None:
    server = program(run, "--host", "0.0.0.0")
    port = server.address().rsplit(":", 1)[1]
    wait_until(lambda: "API key" in "".join(server.said))
    key = re.search(r"send: (\S+)", "".join(server.said))
    assert key
    address = f"http://127.0.0.1:{port}"
    assert http.get(f"{address}/v1/models").status_code == 401
    assert client(address, key[1]).models.list().data[0].id == run.name
    assert "only continues texts" in "".join(server.said)
    assert server.end(signal.SIGINT) == 130
    assert "Traceback" not in "".join(server.said)


@pytest.mark.parametrize("shares", [False, True])
def test_two_servers_never_share_a_port(shares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SO_REUSEADDR, Windows lets them."""
    monkeypatch.setattr(system, "SHARES_PORTS", shares)
    with bind("127.0.0.1", 0) as found:
        assert bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is not shares


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port} cannot be used .*another port"):
            bind("127.0.0.1", port)
    for host in ("", "nowhere.invalid", "ㄱ" * 300):
        with pytest.raises(UserError, match="is no address of this machine"):
            bind(host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_key_that_no_client_can_send_is_refused(host: str, tmp_path: Path) -> None:
    for key, problem in ((" ", "is empty"), ("열쇠", "cannot send"), ("clé", "cannot send"), ("a\tb", "cannot send")):
        with pytest.raises(UserError, match=f"--api-key .*{problem}"):
            serve(tmp_path, host=host, port=0, api_key=key, cors=(), checkpoint=None, device=None)


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_without_bf16_serves_in_fp32(
    has_bf16: bool, dtype: torch.dtype, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A T4 emulates bf16, and has no attention kernel for it."""
    loaded = load_for_inference(run, torch.device("cpu"), None)
    monkeypatch.setattr(type(loaded.model), "device", property(lambda self: torch.device("cuda")))
    monkeypatch.setattr(server, "has_bf16", lambda device: has_bf16)
    monkeypatch.setattr(server, "Service", lambda model, *rest, **settings: model)
    served: Any = server.open_service(loaded, "run")
    assert served.dtype == dtype


def test_names() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.3.2.1")] == [True] * 5
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.7", "kogpt.example")] == [False] * 4
    assert run_name(Path("runs/first")) == run_name(Path("runs/first/checkpoints/step-00000005")) == "first"
