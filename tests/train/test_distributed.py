"""How ranks start and stop, in separate processes, because signal handlers and environment belong to a process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from kogpt.common.device import has_bf16, has_fp16
from kogpt.common.errors import UserError
from kogpt.train import distributed

WAITING = """
import time
from kogpt.train.stop_signal import Stop
stop = Stop()
print("ready", flush=True)
while not stop.code:
    time.sleep(0.02)
raise SystemExit(stop.code)
"""


def _start(program: str, *prefix: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*prefix, sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_a_wish(number: int, code: int) -> None:
    process = _start(WAITING)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.wait(20) == code


def test_a_second_ctrl_c_ends_at_once_but_what_launchers_send_after_one_does_not() -> None:
    process = _start(WAITING.replace("while not stop.code", "while True"))
    assert process.stdout is not None
    process.stdout.readline()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.3)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


def test_a_launcher_that_dies_is_noticed(tmp_path: Path) -> None:
    """The parent has `deepspeed` in its command line, like the real launchers."""
    program = tmp_path / "deepspeed_like.py"
    done = tmp_path / "done"
    child = WAITING.replace("raise SystemExit(stop.code)", f"open({str(done)!r}, 'w').write(str(stop.code))")
    program.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\n")
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    parent.stdout.readline()
    parent.kill()
    end = time.monotonic() + 20
    while not (done.exists() and done.read_text()):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert done.read_text() == "143"
    parent.wait()


@pytest.mark.parametrize(("given", "threads"), [(None, None), ("1", 1)])
def test_cores_are_shared_out(given: str | None, threads: int | None) -> None:
    program = (
        "from kogpt.train.distributed import prepare_environment, share_cores; import os\n"
        "prepare_environment()\nprint(share_cores(2), os.environ['RANK'], os.environ['WORLD_SIZE'])"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "RANK")}
    if given is not None:
        environment["OMP_NUM_THREADS"] = given
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    expected = threads or max(1, len(os.sched_getaffinity(0)) // 2)
    assert done.stdout.split() == [str(expected), "0", "1"]


def test_leaving_flushes_and_tears_nothing_down() -> None:
    """Code that would abort during the interpreter's teardown does not run."""
    program = "import atexit, os\nfrom kogpt.train.distributed import leave\n"
    program += "atexit.register(os.abort)\nprint('done')\nleave(3)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "done\n")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the kernel's list of CPU features: Linux")
def test_bf16_is_what_the_cpu_says() -> None:
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert has_bf16(torch.device("cpu")) == bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


@pytest.mark.parametrize("lacking", [None, 1])
def test_one_rank_without_bf16_decides_for_all(lacking: int | None, tmp_path: Path) -> None:
    program = (
        "import sys, torch, torch.distributed as dist\n"
        "from kogpt.train import distributed\n"
        f"rank, lacking = int(sys.argv[1]), {lacking}\n"
        "distributed.has_bf16 = lambda device: rank != lacking\n"
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/meet', rank=rank, world_size=2)\n"
        "print(distributed.all_have_bf16(distributed.Ranks(rank, 2, rank, 2, torch.device('cpu'))))\n"
    )
    pair = [
        subprocess.Popen([sys.executable, "-c", program, str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in pair] == [str(lacking is None)] * 2


@pytest.mark.parametrize(("capability", "able"), [((6, 1), False), ((7, 0), True), ((8, 9), True)])
def test_fp16_needs_volta(capability: tuple[int, int], able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_fp16(torch.device("cuda", 0)) == able
    assert not has_fp16(torch.device("cpu"))


@pytest.mark.parametrize(("count", "number"), [(1, 0), (8, 3)])
def test_the_gpu_of_a_rank(count: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """srun --gpus-per-task shows each rank its own GPU as number 0. DeepSpeed looks into LOCAL_RANK for it."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(distributed, "_silent", False)
    monkeypatch.setattr(distributed, "unusable_gpus", lambda index: f"GPU {index} is broken")
    with pytest.raises(UserError, match=f"GPU {number} is broken; or set CUDA_VISIBLE_DEVICES="):
        distributed.start()
    assert os.environ["LOCAL_RANK"] == str(number)
    assert distributed.speaker() is None, "one rank of a node prints"


def test_a_rank_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="LOCAL_RANK is 3, but this rank sees 2 GPUs; start one rank for each GPU"):
        distributed.start()


def test_deepspeed_tries_to_compile_nothing_at_the_start(ranks: Any) -> None:
    """The first reader of the table would fill it, and print a warning for each operation that does not compile."""
    import deepspeed

    assert deepspeed.ops.__compatible_ops__ == {}
