"""The demo's texts, its DeepSpeed file for any number of GPUs, and how it starts programs."""

import json
import os
import pwd
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from trainings import PROJECT, deepspeed_file, flags

from kogpt.train.deepspeed_config import plan

demo = runpy.run_path(str(PROJECT / "launch" / "demo.py"))


@pytest.mark.parametrize("ranks", range(1, 17))
def test_its_batch_divides(ranks: int, tmp_path: Path) -> None:
    path = demo["deepspeed_file"](demo["DEEPSPEED"], tmp_path, ranks)
    fitted = plan(path, json.loads(path.read_text()), world_size=ranks, device="cuda", has_bf16=True)
    assert 8 <= fitted.global_batch < 8 + ranks
    assert (path.parent == tmp_path) == (ranks not in (1, 2, 4, 8))


def test_a_program_starts_whose_first_line_names_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip writes that of `deepspeed` where the project's path has a space: the kernel cuts it there."""
    scripts = tmp_path / "연구 자료" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "deepspeed").write_text(f"#!{scripts}/python\nimport sys\nopen(sys.argv[1], 'w').write('here')\n")
    (scripts / "deepspeed").chmod(0o755)
    monkeypatch.setitem(demo["run"].__globals__, "BIN", scripts)
    demo["run"]("deepspeed", tmp_path / "done")
    assert (tmp_path / "done").read_text() == "here"


def test_its_articles_have_no_runs_of_spaces_or_empty_lines() -> None:
    text = "제안이유  및   주요내용 \n\n \n\t국회는\u3000법률을 만든다.\n" * 60
    found = list(demo["passages"](text, at_least=100))
    assert "\n".join(found) == "\n".join(["제안이유 및 주요내용", "국회는 법률을 만든다."] * 60)
    assert all(100 <= len(passage) < 130 for passage in found[:-1])


def test_its_questions_are_not_among_its_conversations() -> None:
    chats = [json.loads(line)["messages"] for line in demo["CHATS"].read_text(encoding="utf-8").splitlines()]
    assert len(chats) > 50
    for messages in chats:
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
    asked = {message["content"] for messages in chats for message in messages if message["role"] == "user"}
    assert not asked & set(demo["QUESTIONS"])


def test_what_runs_beside_a_stage_is_shown_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    with demo["beside"]("python", "-c", "print('둘째')"):
        print("첫째", flush=True)
    assert capfd.readouterr().out.split("\n")[1:3] == ["첫째", "둘째"]


def test_a_failure_beside_a_stage_ends_the_demo() -> None:
    with pytest.raises(SystemExit, match="exit status 3"), demo["beside"]("python", "-c", "raise SystemExit(3)"):
        pass
    with (
        pytest.raises(SystemExit, match="exit status 4"),
        demo["beside"]("python", "-c", "import time; time.sleep(60)"),
    ):
        demo["run"]("python", "-c", "raise SystemExit(4)")


def test_its_ranks_start_once_for_several_trainings(corpus: Path, tmp_path: Path) -> None:
    config = deepspeed_file(tmp_path / "ds.json", 2)
    runs = [tmp_path / "실행 1", tmp_path / "실행 2"]
    with (
        pytest.raises(SystemExit, match="exit status"),
        demo["ranks_of"]("-q", "--num_accelerators", "2") as train,
    ):
        for run in runs:
            train(*flags(corpus, run, config, 1))
        assert [json.loads((run / "run.json").read_text())["state"] for run in runs] == ["finished"] * 2
        train(*flags(tmp_path / "missing", tmp_path / "실행 3", config, 1))


def test_ray_starts_once_and_ends_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    joins = (
        "import ray; from preprocess import cluster; print(cluster.connect(None, 1), ray.cluster_resources()['CPU'])"
    )
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with demo["one_ray"]():
        address = os.environ["RAY_ADDRESS"]
        for _ in range(2):
            said = subprocess.run([sys.executable, "-c", joins], capture_output=True, text=True, check=True).stdout
            assert said.startswith("Ray: cluster of 1 node")
    assert "RAY_ADDRESS" not in os.environ
    host, port = address.split(":")
    with pytest.raises(OSError), socket.create_connection((host, int(port)), timeout=5):
        pass


def test_a_cluster_that_the_user_names_is_left_to_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "node-a:6379")
    with demo["one_ray"]():
        assert os.environ["RAY_ADDRESS"] == "node-a:6379"


def test_its_articles_need_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has a number only."""

    def nobody(number: int) -> NoReturn:
        raise KeyError(number)

    for name in [name for name in sys.modules if name.split(".")[0] == "konlpy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert demo["write_articles"](tmp_path) > 100
