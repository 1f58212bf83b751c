"""The Kubernetes manifests are valid, consistent, and agree with the project."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

kubernetes_validate = pytest.importorskip("kubernetes_validate")
pytestmark = pytest.mark.ecosystem

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "launch" / "kubernetes"
VERSION = "1.31"


def objects(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def pod_templates() -> list[dict[str, Any]]:
    (job,) = objects("preprocess.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [
        {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": f"group-{number}"},
            "template": group["template"],
        }
        for number, group in enumerate(groups)
    ]


@pytest.mark.parametrize("thing", [*objects("train.yaml"), *pod_templates()], ids=lambda thing: thing["kind"])
def test_the_api_takes_it(thing: dict[str, Any]) -> None:
    kubernetes_validate.validate(thing, VERSION, strict=True)


def test_a_wrong_key_would_be_found() -> None:
    job = objects("train.yaml")[1]
    job["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSION, strict=True)


def test_the_nodes_agree() -> None:
    service, job = objects("train.yaml")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    command = pod["containers"][0]["command"][-1]
    assert re.findall(r"--nnodes=(\d+)", command) == [str(spec["completions"])] == [str(spec["parallelism"])]
    name = job["metadata"]["name"]
    assert f"--master-addr={name}-0.{service['metadata']['name']}" in command
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}


def test_the_last_checkpoint_has_the_time_that_the_pod_has() -> None:
    """torchrun kills ranks that save for longer than its time-out, 30 s by default."""
    pod = objects("train.yaml")[1]["spec"]["template"]["spec"]
    [seconds] = re.findall(r"--shutdown-timeout=(\d+)", pod["containers"][0]["command"][-1])
    assert 0.9 < int(seconds) / pod["terminationGracePeriodSeconds"] < 1


@pytest.mark.parametrize("name", ["preprocess.yaml", "train.yaml"])
def test_the_logs_are_those_of_the_job(name: str) -> None:
    """KubeRay gives the Job that submits a RayJob its name; its pods have no other label before KubeRay 1.7."""
    job = objects(name)[-1]
    [logged] = re.findall(r"kubectl logs .*job-name=([\w-]+)", (FOLDER / name).read_text(encoding="utf-8"))
    assert logged == job["metadata"]["name"]


def test_ray_is_the_pinned_one() -> None:
    (job,) = objects("preprocess.yaml")
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = [dependency.partition(";")[0].strip() for dependency in dependencies]
    assert f"ray[default]=={job['spec']['rayClusterSpec']['rayVersion']}" in pinned
