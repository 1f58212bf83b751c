"""A Python as on Windows: without Ray, DeepSpeed, and what only POSIX systems have. `python elsewhere.py JOBS.json`.

In: a list of command lines, each ["kogpt", words, standard input], ["launch/train.py", words, ""], or for `kogpt.load`
["load", [run, prompt], ""]. Out: JOBS.out.json, the exit status and the output of each. All run in this process,
because torch takes seconds to start. `serve` is asked for an answer, and then interrupted.
"""

import contextlib
import importlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil  # noqa: F401 - like the next, it asks for the names that its build for this system has
import torch  # noqa: F401
import uvicorn  # noqa: F401
import wandb  # noqa: F401

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("ray", "deepspeed", "fcntl", "resource", "pwd", "grp", "termios", "tty", "pty")
OS_NAMES = (
    *("killpg", "fork", "forkpty", "setsid", "getpgid", "getuid", "geteuid", "getgid", "getegid", "mkfifo", "fchmod"),
    *("sched_getaffinity", "sched_setaffinity", "getloadavg", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "WNOHANG"),
)
SIGNALS = ("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGPIPE", "SIGALRM", "SIGCHLD", "SIGTSTP", "SIGWINCH")


def leave_posix() -> None:
    """Take the names away from this process. What is asked for them from now on is as on Windows."""
    programs: Any = subprocess  # how it starts programs here needs the names
    programs.os, programs.signal = SimpleNamespace(**vars(os)), SimpleNamespace(**vars(signal))
    for name in PACKAGES:
        sys.modules[name] = None  # type: ignore[assignment]  # `import` fails, and importlib's find_spec finds nothing
    for name in OS_NAMES:
        delattr(os, name)
    for name in SIGNALS:
        delattr(signal, name)


def ask_and_interrupt(port: int, said: list[Any]) -> None:
    """Wait for the server, ask for a completion, and press Ctrl-C."""
    address = f"http://127.0.0.1:{port}"
    body = json.dumps({"model": "run", "prompt": "국회는", "max_tokens": 8, "temperature": 0}).encode()
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health"):
                break
            time.sleep(0.1)
        question = urllib.request.Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(question) as answer:
            said.append(json.load(answer)["choices"][0]["text"])
    finally:
        os.kill(os.getpid(), signal.SIGINT)


def call(program: str, words: list[str], stdin: str) -> list[Any]:
    """The exit status and the output of one command."""
    import kogpt
    from kogpt import cli

    sys.argv, sys.stdin = [program, *words], io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    out, said, code = io.StringIO(), list[Any](), 0
    if words[:1] == ["serve"]:
        threading.Thread(target=ask_and_interrupt, args=(int(words[-1]), said), daemon=True).start()
    try:
        with contextlib.redirect_stdout(out):
            if program == "kogpt":
                cli.main()
            elif program == "load":
                print(kogpt.load(words[0]).generate(words[1], max_new_tokens=8))
            else:
                runpy.run_path(str(PROJECT / program), run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    return [code, out.getvalue(), *said]


def _main() -> None:
    jobs = Path(sys.argv[1])
    leave_posix()
    distributed: Any = importlib.import_module("kogpt.train.distributed")
    distributed.leave = sys.exit  # launch/train.py ends its process; here others follow
    done = [call(*job) for job in json.loads(jobs.read_text())]
    jobs.with_suffix(".out.json").write_text(json.dumps(done))


if __name__ == "__main__":
    _main()
