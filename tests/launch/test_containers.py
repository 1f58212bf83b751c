"""The Dockerfiles: what their lines say, and (slow) what comes of them in a bare Debian root."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from images import PROJECT, Image, bare_debian, ignored_patterns, instructions, is_ignored, missing

CPU, CUDA = PROJECT / "Dockerfile", PROJECT / "Dockerfile.cuda"


def value(dockerfile: Path, word: str) -> list[str]:
    return [rest for found, rest in instructions(dockerfile) if found == word]


def test_the_image_for_gpus_differs_in_torch_and_the_compiler_only() -> None:
    cpu, cuda = instructions(CPU), instructions(CUDA)
    install = next(rest for _, rest in cpu if "launch/install.sh" in rest)
    more = [line for line in cuda if line not in cpu]
    assert [word for word, _ in more] == ["RUN", "ARG", "RUN", "ENV"]
    assert more[0][1] == cpu[1][1].replace(" wget ", " wget gcc libc6-dev python3-dev ")
    assert more[2][1] == install.replace("sh ", "UV_TORCH_BACKEND=$CUDA sh ")
    assert [line for line in cpu if line not in cuda] == [cpu[1], ("RUN", install)]


@pytest.mark.parametrize("dockerfile", [CPU, CUDA], ids=lambda path: path.name)
def test_it_runs_as_an_ordinary_user_where_the_manifests_say(dockerfile: Path) -> None:
    assert value(dockerfile, "USER") == ["kogpt"]
    folder = value(dockerfile, "WORKDIR")[-1]
    assert f"PATH={folder}/.venv/bin:$PATH" in value(dockerfile, "ENV")[0]
    for name in ("preprocess", "train"):
        text = (PROJECT / f"launch/kubernetes/{name}.yaml").read_text()
        assert list(yaml.safe_load_all(text))
        assert f"workingDir: {folder}" in text


def test_docker_stop_leaves_the_time_for_a_last_checkpoint() -> None:
    """`deepspeed` dies at once of a SIGTERM, and the container with it; torchrun kills ranks after its time-out."""
    text = (PROJECT / "docs/containers.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^docker run [^`]*?launch/train\.py", text, re.MULTILINE)
    [seconds] = re.findall(r" torchrun .*--shutdown-timeout=(\d+) launch/train", command)
    [limit] = re.findall(r"docker stop -t (\d+)", text)
    assert 0.9 < int(seconds) / int(limit) < 1


def test_what_is_ignored() -> None:
    patterns = ignored_patterns()
    ours = (".git", ".git/HEAD", ".venv/bin/python", "demo/run", "kogpt/data/__pycache__/a.pyc", ".mypy_cache/x")
    for path in (*ours, "articles/a.json", "corpus/tokens-00000.npy", "model/README.md", ".env", "chats.jsonl"):
        assert is_ignored(path, patterns), path
    kept = subprocess.run(["git", "-C", PROJECT, "ls-files"], capture_output=True, text=True).stdout.splitlines()
    assert not [path for path in kept if is_ignored(path, patterns) and not path.startswith(".")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if reason := missing():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("image") / "root"
    bare_debian(root)
    built = Image(root)
    built.build(CPU)
    yield built
    shutil.rmtree(root)  # holds no mounts: those of a command end with it


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder that the container's user may write, with articles."""
    folder = tmp_path / "data"
    (folder / "articles").mkdir(parents=True)
    for number in range(40):
        text = f"제{number}조 국회는 국민의 보통·평등·직접·비밀선거에 의하여 선출된 국회의원으로 구성한다. " * 4
        (folder / f"articles/{number}.txt").write_text(text, encoding="utf-8")
    folder.chmod(0o777)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("user", ["kogpt", "54321"], ids=["the image's user", "a user without a name"])
def test_both_commands_run_in_the_image(image: Image, data: Path, user: str) -> None:
    def run(line: str) -> str:
        done = image.run(line.split(), user=user, data=data)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "FIX  Kkma" not in image.run(image.command, user=user).stdout
    run("python preprocess/run.py --input /data/articles --output /data/corpus --vocab-size 500")
    run(
        "torchrun --nproc-per-node=2 --shutdown-timeout=280 launch/train.py --corpus /data/corpus --out /data/run "
        "--depth 1 --steps 4 --max-seq-len 32 --save-every 2 --eval-every 2"
    )
    state = json.loads((data / "run/run.json").read_text())
    assert state["state"] == "finished"
    assert run("kogpt generate /data/run 국회는 --max-new-tokens 8").startswith("국회는")
