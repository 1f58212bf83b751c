"""Joining Ray or starting it here, and what its nodes have."""

from collections.abc import Iterator

import pytest
import ray

from kogpt.common.errors import UserError
from preprocess.cluster import connect, even_threads, living_nodes


@pytest.fixture(autouse=True)
def no_ray() -> Iterator[None]:
    ray.shutdown()
    yield
    ray.shutdown()


def test_ray_of_its_own_has_a_core_for_each_worker() -> None:
    assert connect("local", 5) == "Ray: this machine"
    (node,) = living_nodes()
    assert node.cores >= 5
    assert node.memory_mib > 100
    assert str(node) == f"{node.cores} CPU and {node.memory_mib} MiB"


def test_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"--ray-address 127.0.0.1:1: no Ray cluster can be reached"):
        connect("127.0.0.1:1", None)


def test_threads_leave_no_core_over() -> None:
    assert [even_threads([n], 4) for n in (1, 2, 3, 4, 5, 6, 16)] == [1, 2, 3, 4, 1, 3, 4]
    assert even_threads([16, 6], 4) == 2
    assert even_threads([16], 1) == 1
