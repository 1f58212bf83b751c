"""launch/cluster.yaml on emulated machines: `ray up`, `ray submit` of real Kkma runs, and machines that fail.

The reference is one run of the same command on one machine with a Ray of its own. Every run on the cluster must give
the same bytes, whatever happens to it. The tests run in order and share one cluster, which grows, loses machines, and
gets them back. The head has no cores, so that all work is done where the failures happen.
"""

import contextlib
import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from konlpy.corpus import kobill, kolaw
from machines import SHARED, Machine, machines, missing, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ACTOR = "^ray::Actor"
RAYLET = "raylet/raylet"
DRIVER = "^python .*run.py"

# Runs on the head beside GCS and says how many nodes Ray holds for alive.
WATCH = """
import pathlib, ray, time
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
while True:
    pathlib.Path("/srv/home/alive").write_text(str(sum(node["Alive"] for node in ray.nodes())))
    time.sleep(0.5)
"""

# How docs/cluster.md adds a bare machine to a cluster that is at work.
ADD = """
set -e; cd kogpt
export RSYNC_RSH='ssh -o StrictHostKeyChecking=no'
rsync -a --filter=':- .gitignore' --exclude=.git ./ {new}:kogpt/
rsync -a ~/.ray/auth_token {new}:.ray/
ssh -o StrictHostKeyChecking=no {new} 'make -C kogpt install &&
    RAY_AUTH_MODE=token kogpt/.venv/bin/ray start --address={head}:6379 --object-store-memory=1000000000'
"""


@dataclass
class Cluster:
    """Machines as one Ray cluster, run from a laptop."""

    laptop: Machine
    head: Machine
    workers: list[Machine]
    expected: dict[str, str]

    def ray(self, line: str, limit: float = 120) -> subprocess.CompletedProcess[str]:
        """A `ray` command as the README has it, typed on the laptop in the project's folder."""
        return self.laptop.run(f"cd kogpt; RAY_AUTH_MODE=token ray {line}", limit=limit)

    def up(self, workers: list[Machine]) -> None:
        """Fill in the template, and `ray up`."""
        settings = yaml.safe_load((self.laptop.home / "kogpt/launch/cluster.yaml").read_text())
        settings["provider"].update(head_ip=self.head.address, worker_ips=[worker.address for worker in workers])
        settings["auth"]["ssh_user"] = "root"
        (self.laptop.home / "cluster.yaml").write_text(yaml.safe_dump(settings))
        result = self.ray("up -y ~/cluster.yaml", limit=200)
        assert result.returncode == 0, result.stdout[-3000:]

    def alive(self) -> int:
        """How many nodes Ray holds for alive."""
        if not self.head.pids("^python watch.py"):
            (self.head.home / "alive").write_text("0")
            (self.head.home / "watch.py").write_text(WATCH)
            self.head.run("(python watch.py >watch.log 2>&1 &)")
            wait_for("the watch sees something", lambda: self._seen() > 0, 60)
        return self._seen()

    def _seen(self) -> int:
        return int((self.head.home / "alive").read_text() or 0)

    def wait_for_nodes(self, count: int, limit: float = 120) -> None:
        wait_for(f"{count} nodes are alive", lambda: self.alive() == count, limit, 0.5)

    def submit(self, name: str) -> "Run":
        return Run(self, name)


class Run:
    """A `ray submit` of preprocess/run.py, under way."""

    def __init__(self, cluster: Cluster, name: str):
        self.cluster, self.name = cluster, name
        self.folder = cluster.head.shared / name
        self.log = cluster.laptop.base / f"{name}-{time.monotonic():.0f}.log"
        line = f"ray submit ~/cluster.yaml preprocess/run.py -- {arguments(name)}"
        self.process = cluster.laptop.spawn(f"cd kogpt; exec {line}", self.log)

    def results(self) -> dict[str, int]:
        """What is on disk of the first stage: name and time of each unit."""
        found = (self.folder / "morphemes").glob("[0-9a-f]*")
        return {path.name: path.stat().st_mtime_ns for path in found}

    def underway(self, on: list[Machine], units: int = 1) -> None:
        """Wait until these machines have actors and results come in; it must not be nearly over then."""

        def begun() -> bool:
            assert self.process.poll() is None, self.text()
            return len(self.results()) >= units and all(machine.pids(ACTOR) for machine in on)

        wait_for(f"{self.name} is under way", begun, 120, 0.5)
        assert self.process.poll() is None
        assert not (self.folder / "corpus/manifest.json").exists()

    def end(self, limit: float = 150) -> int:
        try:
            return self.process.wait(limit)
        finally:
            self.process.kill()

    def text(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def check(self) -> None:
        """It ends well, and in the same bytes."""
        assert self.end() == 0, self.text()
        assert digests(self.folder / "corpus") == self.cluster.expected


@contextlib.contextmanager
def paused(machine: Machine) -> Iterator[None]:
    """Its actors stand still for a while."""
    machine.signal("STOP", ACTOR)
    try:
        yield
    finally:
        machine.signal("CONT", ACTOR)


def arguments(name: str) -> str:
    return f"--input {SHARED}/articles.jsonl --output {SHARED}/{name}/corpus --vocab-size 2000"


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "report.html")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_articles(path: Path, count: int) -> None:
    """Passages of konlpy's laws and bills; each begins three lines behind the one before it."""
    texts = [corpus.open(name).read() for corpus in (kolaw, kobill) for name in sorted(corpus.fileids())]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    passages = ["\n".join(lines[start : start + 20]) for start in range(0, 3 * count, 3)]
    rows = [json.dumps({"id": f"law-{i}", "text": text}, ensure_ascii=False) for i, text in enumerate(passages)]
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("cluster")
    with machines(base, "laptop", "head", "worker-1", "worker-2") as (laptop, head, *workers):
        for node, cores in ((head, 0), *((worker, 1) for worker in workers)):
            (node.home / ".bashrc").write_text(f"export RAY_OVERRIDE_RESOURCES='{{\"CPU\": {cores}}}'\n")
        assert laptop.run("ray get-auth-token --generate >/dev/null").returncode == 0
        cluster = Cluster(laptop, head, workers, expected={})
        cluster.up(workers[:1])
        write_articles(base / "shared/articles.jsonl", 160)
        alone = f"python ~/kogpt/preprocess/run.py {arguments('local')} --ray-address local"
        local = head.run(f"unset RAY_OVERRIDE_RESOURCES; {alone}", limit=200)
        assert local.returncode == 0, local.stdout[-3000:]
        cluster.expected = digests(base / "shared/local/corpus")
        assert {"manifest.json", "articles.parquet", "tokenizer/vocab.txt"} <= cluster.expected.keys()
        cluster.wait_for_nodes(2)
        yield cluster


def test_output_and_exit_code_come_back(cluster: Cluster) -> None:
    (cluster.laptop.home / "three.py").write_text("import sys; print('said', sys.argv[1:]); sys.exit(int(sys.argv[1]))")
    good, bad = (cluster.ray(f"submit ~/cluster.yaml ~/three.py -- {code} --flag") for code in (0, 3))
    assert "said ['0', '--flag']" in good.stdout
    assert good.returncode == 0
    assert "said ['3', '--flag']" in bad.stdout
    assert bad.returncode != 0


def test_strangers_are_turned_away(cluster: Cluster) -> None:
    listening = cluster.head.run("ss -Hltn 'sport = :8265'").stdout
    assert "127.0.0.1:8265" in listening
    assert len(listening.splitlines()) == 1
    stranger = cluster.laptop.run(f"RAY_AUTH_MODE=disabled timeout 60 ray status --address {cluster.head.address}:6379")
    assert stranger.returncode != 0
    assert "oken" in stranger.stdout


def test_a_worker_joins_late(cluster: Cluster) -> None:
    run = cluster.submit("late")
    run.underway(cluster.workers[:1])
    new = cluster.workers[1]
    with paused(cluster.workers[0]):  # on a fast machine all would be done before the new one is there
        added = cluster.laptop.run(ADD.format(new=new.address, head=cluster.head.address))
        assert added.returncode == 0, added.stdout
        run.underway(cluster.workers)
    run.check()


def test_run_uses_all_workers_and_has_the_bytes_of_a_local_run(cluster: Cluster) -> None:
    run = cluster.submit("whole")
    run.underway(cluster.workers)
    run.check()


def test_a_workers_raylet_is_killed(cluster: Cluster) -> None:
    victim = cluster.workers[0]
    run = cluster.submit("raylet")
    run.underway([victim])
    victim.signal("KILL", RAYLET)
    run.check()


def test_a_workers_cable_is_pulled(cluster: Cluster) -> None:
    cluster.wait_for_nodes(3)  # the one killed before is started again by Ray
    victim = cluster.workers[1]
    run = cluster.submit("cable")
    run.underway([victim])
    victim.unplug()
    pulled = time.monotonic()
    try:
        cluster.wait_for_nodes(2, limit=30)
        noticed = time.monotonic() - pulled
        time.sleep(max(0.0, 25 - noticed))
    finally:
        victim.plug()
    print(f"silence noticed after {noticed:.1f} s")
    assert noticed < 20
    run.check()


def test_the_driver_is_killed_and_goes_on_as_a_job(cluster: Cluster) -> None:
    run = cluster.submit("driver")
    run.underway([], units=2)
    cluster.head.signal("KILL", DRIVER)
    assert run.end(60) != 0
    kept = run.results()
    assert len(kept) >= 2
    forward = cluster.laptop.spawn(
        f"exec ssh -N -o StrictHostKeyChecking=no -L 8265:127.0.0.1:8265 root@{cluster.head.address}",
        cluster.laptop.base / "forward.log",
    )
    try:
        wait_for("the tunnel", lambda: cluster.laptop.run("ss -Hltn | grep -q 127.0.0.1:8265").returncode == 0, 20)
        job = cluster.ray(
            "job submit --address http://127.0.0.1:8265 --working-dir . -- "
            f"python preprocess/run.py {arguments('driver')}",
            limit=150,
        )
    finally:
        forward.kill()
    assert job.returncode == 0, job.stdout[-3000:]
    assert digests(run.folder / "corpus") == cluster.expected
    assert kept.items() <= run.results().items()


def test_a_path_that_the_head_does_not_see_is_named(cluster: Cluster) -> None:
    (cluster.laptop.home / "mine.jsonl").write_text('{"text": "여기에만 있다"}\n')
    result = cluster.ray(
        "submit ~/cluster.yaml preprocess/run.py -- --vocab-size 2000 "
        "--input /srv/home/mine.jsonl --output /srv/home/out"
    )
    assert result.returncode != 0
    assert "--input /srv/home/mine.jsonl: no file found on head" in result.stdout
    assert "Traceback" not in result.stdout


def test_the_head_is_lost_and_brought_up_again(cluster: Cluster) -> None:
    run = cluster.submit("head")
    run.underway([], units=2)
    cluster.head.power_off()
    assert run.end(90) != 0
    kept = run.results()
    assert len(kept) >= 2
    cluster.head.start()
    cluster.up(cluster.workers)
    wait_for("a worker is back", lambda: cluster.alive() >= 2, 120, 0.5)
    again = cluster.submit("head")
    again.check()
    assert kept.items() <= again.results().items()


def test_down_ends_it(cluster: Cluster) -> None:
    down = cluster.ray("down -y ~/cluster.yaml")
    assert down.returncode == 0, down.stdout
    assert not cluster.head.pids("raylet/raylet|gcs_server")


def test_no_node_can_hold_a_worker(cluster: Cluster) -> None:
    small = 'RAY_OVERRIDE_RESOURCES=\'{"CPU": 1, "memory": 300000000}\''
    started = cluster.head.run(f"{small} ray start --head --port=6380 --include-dashboard=false")
    assert started.returncode == 0, started.stdout
    begin = time.monotonic()
    result = cluster.head.run(f"python ~/kogpt/preprocess/run.py {arguments('small')} --ray-address auto")
    assert time.monotonic() - begin < 40
    assert result.returncode == 2, result.stdout
    assert "no node of the Ray cluster can hold a worker" in result.stdout
