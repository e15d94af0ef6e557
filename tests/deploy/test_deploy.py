"""The examples in `deploy/`: checked against schemas, against our own command line, settings and metrics.

No container is built and no cluster is asked here.
"""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import typer
import yaml

from fastworker.cli import build_app
from fastworker.settings import Settings
from fastworker_dashboard import metrics
from tests.support.cluster import COMMAND, ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
KUBERNETES = ("1.27", "1.33")
"""The oldest and the newest release that the manifests are for."""


def documents() -> Iterator[Any]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield pytest.param(document, id=f"{path.stem}-{document['kind']}")


def all_documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def containers() -> dict[str, dict[str, Any]]:
    found = [document["spec"]["template"]["spec"] for document in all_documents() if "template" in document["spec"]]
    return {container["name"]: container for pod in found for container in pod["containers"]}


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    return found


def commands() -> Iterator[Any]:
    """Every command line of `fastworker` in the examples."""
    for unit in UNITS:
        [line] = re.findall(r"^ExecStart=\S+/fastworker (.*)$", unit.read_text(), re.MULTILINE)
        yield pytest.param(shlex.split(line), id=unit.stem)
    for name, container in containers().items():
        yield pytest.param(container["args"], id=f"kubernetes-{name}")
    for name, service in services().items():
        yield pytest.param(service["command"], id=f"compose-{name}")
    [line] = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    yield pytest.param(yaml.safe_load(line), id="Dockerfile")


@pytest.mark.parametrize("words", [*commands()])
def test_each_command_is_one_of_ours(words: list[str]) -> None:
    command: Any = typer.main.get_command(build_app(words[0]))
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("fastworker", list(words))  # ends the test if an option is not known


def test_each_variable_is_a_setting() -> None:
    said = {name for path in DEPLOY.rglob("*") if path.is_file() for name in _VARIABLE.findall(path.read_text())}
    known = {f"FASTWORKER_{name.upper()}" for name in Settings.model_fields} | {"FASTWORKER_RUNTIME_DIR"}
    assert len(said) > 5
    assert said - known == set()


_VARIABLE = re.compile(r"\bFASTWORKER_[A-Z_]*[A-Z]\b")


@pytest.mark.parametrize("release", KUBERNETES)
@pytest.mark.parametrize("document", [*documents()])
def test_each_manifest_fits_the_schema_of_kubernetes(document: dict[str, Any], release: str) -> None:
    kubernetes_validate.validate(document, release, strict=True)


def test_what_the_manifests_say_of_each_other_is_there() -> None:
    by_name = {(document["kind"], document["metadata"]["name"]): document for document in all_documents()}
    scaled = by_name["HorizontalPodAutoscaler", "fastworker-worker"]["spec"]
    assert (scaled["scaleTargetRef"]["kind"], scaled["scaleTargetRef"]["name"]) in by_name
    service = by_name["Service", "fastworker"]["spec"]
    pod = by_name["StatefulSet", "fastworker-control-plane"]["spec"]["template"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    open_ports = {port["name"]: port["containerPort"] for port in containers()["control-plane"]["ports"]}
    assert {port["name"]: port["port"] for port in service["ports"]} == open_ports
    assert "replicas" not in by_name["Deployment", "fastworker-worker"]["spec"], "the autoscaler says how many"
    [metric] = scaled["metrics"]
    assert metric["external"]["metric"]["name"] in inspect.getsource(metrics)


@pytest.mark.parametrize("name", ["fastworker-worker", "fastworker-control-plane"])
def test_a_pod_has_more_time_to_end_than_its_tasks(name: str) -> None:
    for document in all_documents():
        if document["metadata"]["name"] == name and "template" in document["spec"]:
            pod = document["spec"]["template"]["spec"]
            args = pod["containers"][0]["args"]
            grace = float(args[args.index("--grace") + 1]) if "--grace" in args else 0.0
            assert pod["terminationGracePeriodSeconds"] > grace
            assert pod["enableServiceLinks"] is False


@pytest.mark.systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_understands_each_unit(unit: Path, tmp_path: Path) -> None:
    """With our own command in the place of the one that is on the machine that it is for."""
    text = unit.read_text().replace("/srv/shop/.venv/bin/fastworker", str(COMMAND)).replace("/srv/shop", str(tmp_path))
    copy = tmp_path / unit.name
    copy.write_text(text.replace("User=fastworker\n", "User=daemon\n"))  # a user that every machine has
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
