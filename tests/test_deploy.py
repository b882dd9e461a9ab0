"""Deployment files parse, name what exists, and agree with the code they configure."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.request import RunRequest
from galpipe.config import settings_from
from galpipe.survey.region import parse_region

REPOSITORY = Path(__file__).resolve().parent.parent
DEPLOY = REPOSITORY / "deploy"
CLUSTERS = ("local", "cuda", "slurm")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def deployments() -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in load(DEPLOY / "prefect.yaml")["deployments"]}


def test_there_is_a_scheduled_and_an_ad_hoc_deployment() -> None:
    found = deployments()
    assert [name for name, item in found.items() if item.get("schedules")] == ["nightly"]
    assert "region" in found


@pytest.mark.parametrize("name", sorted(deployments()))
def test_entrypoint_exists_and_takes_the_parameters(name: str) -> None:
    from flows.survey import survey

    deployment = deployments()[name]
    file, _, function = deployment["entrypoint"].partition(":")
    assert (REPOSITORY / file).is_file() and function == survey.fn.__name__ == "survey"
    inspect.signature(survey.fn).bind(**deployment["parameters"])


@pytest.mark.parametrize("name", sorted(deployments()))
def test_parameters_are_a_request_that_is_accepted(name: str) -> None:
    values = deployments()[name]["parameters"]
    request = RunRequest.build(values["release"], values["region"], (values["root"], values["name"]), values["options"])
    assert request.quiet
    parse_region(request.region)


def test_schedule_is_one_that_prefect_accepts() -> None:
    from prefect.client.schemas.schedules import CronSchedule

    schedule = deployments()["nightly"]["schedules"][0]
    assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]).cron == schedule["cron"]


def test_prefect_reads_its_file() -> None:
    from prefect.cli.deploy._models import PrefectYamlModel

    model = PrefectYamlModel.model_validate(load(DEPLOY / "prefect.yaml"))
    assert [item.entrypoint for item in model.deployments] == ["flows/survey.py:survey"] * 2


@pytest.mark.parametrize("name", CLUSTERS)
def test_cluster_files_hold_a_cluster_table_and_settings_dask_knows(name: str) -> None:
    import dask
    import distributed  # noqa: F401 - brings its defaults into dask's configuration

    content = load(DEPLOY / "clusters" / f"{name}.yaml")
    settings_from(content["galpipe"])
    known = _keys(dask.config.get("distributed"))
    assert {key for key in _keys(content["distributed"]) if key not in known} == set()


def _keys(values: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted names of all settings."""
    found: set[str] = set()
    for key, value in values.items():
        found |= _keys(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key}
    return found


def test_kubernetes_template_points_galpipe_at_its_own_scheduler() -> None:
    documents = {item["kind"]: item for item in yaml.safe_load_all((DEPLOY / "clusters" / "kubernetes.yaml").read_text())}
    settings = settings_from(tomllib.loads(documents["ConfigMap"]["data"]["galpipe.toml"]))
    cluster = documents["DaskCluster"]
    port = cluster["spec"]["scheduler"]["service"]["ports"][0]["port"]
    assert settings.cluster.address == f"tcp://{cluster['metadata']['name']}-scheduler:{port}"
    assert "GPU=1" in cluster["spec"]["worker"]["spec"]["containers"][0]["args"]


def test_compose_services_share_one_root_and_wait_for_services_that_exist() -> None:
    compose = load(DEPLOY / "compose.yaml")
    services = compose["services"]
    assert {"postgres", "prefect", "worker", "dask-scheduler", "dask-worker"} <= set(services)
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
    mounts = {
        name: service["volumes"] for name, service in services.items() if name in ("deploy", "worker", "dask-scheduler", "dask-worker")
    }
    assert set(map(tuple, mounts.values())) == {("data:/app/galpipe-data",)}
    assert "GPU=1" in services["dask-worker"]["command"]
    assert (DEPLOY / services["prefect"]["build"]["context"] / services["prefect"]["build"]["dockerfile"]).is_file()


def test_compose_registers_every_deployment() -> None:
    script = load(DEPLOY / "compose.yaml")["services"]["deploy"]["command"][-1]
    named = re.search(r"for deployment in ([^;]*);", script)
    assert named and set(named[1].split()) == set(deployments())


def test_image_runs_as_an_ordinary_user_from_files_that_exist() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM python:3.11-slim"]
    assert [line for line in lines if line.startswith("USER")] == ["USER galpipe"]
    copied = [line.split()[1] for line in lines if line.startswith("COPY") and "--chown" not in line]
    assert copied and all((REPOSITORY / name).exists() for name in copied)


def test_no_secret_is_written_down() -> None:
    for path in DEPLOY.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            if re.search(r"password\s*[:=]", line, re.IGNORECASE) and not line.startswith("#"):
                assert "${GALPIPE_DB_PASSWORD" in line, f"{path.name}: {line}"
