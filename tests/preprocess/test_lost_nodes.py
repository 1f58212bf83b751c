"""A node of the cluster that dies with texts of an object store on it: the run goes on, with the same bytes."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from pipelines import checksums
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from stores import Store, store

from preprocess import pipeline, reading
from preprocess.cluster import connect, leave
from preprocess.options import Options
from preprocess.pipeline import preprocess
from preprocess.pool import Pool
from preprocess.reading import Readers


@pytest.fixture
def server(options: Options, tmp_path: Path) -> Iterator[Store]:
    with store(tmp_path / "home") as server:
        server.put_folder(Path(options.input[0]), "articles")
        yield server


@pytest.fixture
def cluster(server: Store) -> Iterator[Cluster]:
    """Two nodes on this machine, of which the driver is on the first."""
    leave()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        connect(cluster.address, None)
        yield cluster
    finally:
        leave()
        cluster.shutdown()


def test_texts_that_a_dead_node_held_are_read_again(
    cluster: Cluster,
    server: Store,
    options: Options,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It dies when the first chunk is to be sent, whose texts are there, and too large for Ray to send them at once."""
    monkeypatch.setattr(pipeline, "LARGE", 0)
    (victim,) = (node["NodeID"] for node in ray.nodes() if node["NodeID"] != ray.get_runtime_context().get_node_id())
    there = {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(victim, soft=False)}
    reader: Any = reading._Reader
    monkeypatch.setattr(reading, "_Reader", SimpleNamespace(options=lambda **_: reader.options(**there)))
    send, again = Pool._send, Readers.again
    renewed: list[Any] = []

    def kills(pool: Pool, *arguments: Any, **named: Any) -> None:
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)
            end = time.monotonic() + 60
            while sum(node["Alive"] for node in ray.nodes()) > 1:
                assert time.monotonic() < end
                time.sleep(0.1)
        send(pool, *arguments, **named)

    def watched(readers: Readers, wanted: Any) -> Any:
        renewed.append(wanted)
        return again(readers, wanted)

    monkeypatch.setattr(Pool, "_send", kills)
    monkeypatch.setattr(Readers, "again", watched)
    run = replace(
        options,
        input=(server.url("articles"),),
        output=str(tmp_path / "corpus"),
        cache=str(tmp_path / "cache"),
        workers=1,
    )
    preprocess(run)
    assert checksums(run) == undisturbed
    assert renewed
