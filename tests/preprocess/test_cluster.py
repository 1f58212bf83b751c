"""Joining Ray or starting it here, and the resources of its nodes."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from kogpt.common.cores import usable_cores
from kogpt.common.errors import UserError
from preprocess.cluster import NodeWatch, _address_of_this_machine, connect, even_threads, leave, living_nodes


@pytest.fixture(autouse=True)
def no_ray() -> Iterator[None]:
    leave()
    yield
    leave()


def test_ray_of_its_own_has_a_core_for_each_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a folder whose path is too long for a socket, and with a home in which nothing may be written."""
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setenv("HOME", "/proc/1/nowhere")
    assert connect("local", 5) == "Ray: this machine"
    (node,) = living_nodes()
    assert node.cores >= 5
    assert node.memory_mib > 100
    assert str(node) == f"{node.cores} CPU and {node.memory_mib} MiB"
    [raylet] = [child for child in psutil.Process().children() if child.name() == "raylet"]
    assert any("agent.py" in word and "--minimal" in word for word in raylet.cmdline()), (
        "the whole agent takes longer than the node waits, on a slow machine"
    )


def test_token_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="no Ray cluster can be reached"):
        connect("127.0.0.1:1", None)
    assert token.stat().st_mode & 0o777 == 0o600


def test_address_is_read_where_ray_start_writes_it_and_from_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert _address_of_this_machine() is None
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text("10.0.0.1:6379\n")
    assert _address_of_this_machine() == "10.0.0.1:6379"
    file.rename(tmp_path / "else")
    file.symlink_to(tmp_path / "else")
    assert _address_of_this_machine() is None
    file.unlink()
    os.mkfifo(file)
    assert _address_of_this_machine() is None
    if os.geteuid() == 0:
        file.unlink()
        file.write_text("6.6.6.6:6379")
        os.chown(file, 12345, 12345)
        assert _address_of_this_machine() is None


def test_cores_are_those_of_affinity_and_quota(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    none = tmp_path / "none"
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores(none, none) == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores(none, none) == len(before)

    def cores(files: dict[str, str], own: str) -> int:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        (root / "own").write_text(own)
        return usable_cores(root, root / "own")

    every = len(before)
    assert cores({"cpu.max": "max 100000\n"}, "0::/\n") == every
    assert cores({"cpu.max": "50000 100000\n"}, "0::/\n") == 1
    assert cores({"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n") == 1
    assert cores({"cpu.max": "100000 100000\n"}, "0::/../only/on/the/host\n") == 1
    assert cores({"cpu.max": f"{every * 90_001} 90000\n"}, "0::/\n") == every
    v1 = {"cpu/a/cpu.cfs_quota_us": "20000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}
    assert cores(v1, "3:cpuset:/a\n1:cpu,cpuacct:/a\n") == 1
    assert cores({name: text.replace("20000", "-1") for name, text in v1.items()}, "1:cpu:/a\n") == every
    assert cores({"cpu.max": "nonsense"}, "0::/\n") == every


def test_a_node_that_dies_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    nodes = [
        {"NodeID": id, "Alive": True, "NodeManagerHostname": f"node-{id}", "NodeManagerAddress": "10.0.0.2",
         "Resources": {"CPU": 2.0, "memory": float(1 << 30)}}
        for id in "ab"
    ]  # fmt: skip
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    watch = NodeWatch()
    with caplog.at_level("INFO", "preprocess"):
        assert len(watch.look()) == 2
        assert caplog.messages == []
        nodes[1] = {**nodes[1], "Alive": False, "Resources": {}}
        assert [str(node) for node in watch.look()] == ["2 CPU and 1024 MiB"]
        nodes.append({**nodes[0], "NodeID": "c", "NodeManagerHostname": "node-c"})
        watch.look()
        watch.look()
    assert caplog.messages == [
        "Ray: node node-b (10.0.0.2) is dead; other nodes do its work again",
        "Ray: node node-c (10.0.0.2) has joined",
    ]


def test_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"--ray-address 127.0.0.1:1: no Ray cluster can be reached"):
        connect("127.0.0.1:1", None)


def test_a_missing_token_is_said(tmp_path: Path) -> None:
    """In a process of its own, because Ray reads a token once."""
    tokens = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    environment = {name: value for name, value in os.environ.items() if name not in tokens}
    environment |= {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        code = f"from preprocess.cluster import connect; connect({address!r}, None)"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200
        )
    assert f"UserError: --ray-address {address}: no Ray cluster can be reached" in done.stderr
    assert "token" in done.stderr.rpartition("UserError: ")[2]


BESIDE_JAVA = """
import jpype
from kogpt.tokenizer.analyzers.kkma.analyzer import Kkma
from kogpt.tokenizer.analyzers.kkma.identity import kkma_identity
from preprocess.cluster import connect, leave
kkma = Kkma(kkma_identity())
connect("local", 1)
for round in range(60):
    kkma.analyze("국회는 법률을 만든다. " * 100)
    jpype.java.lang.System.gc()
    if round == 30:
        leave()
"""


def test_java_lives_on_where_ray_starts_and_ends_beside_it() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE_JAVA], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_threads_leave_no_core_over() -> None:
    assert [even_threads([n], 4) for n in (1, 2, 3, 4, 5, 6, 16)] == [1, 2, 3, 4, 1, 3, 4]
    assert even_threads([16, 6], 4) == 2
    assert even_threads([16], 1) == 1
