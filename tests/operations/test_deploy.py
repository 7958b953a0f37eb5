"""The files that deploy the service: linted, and true to the service they deploy. No image is built here."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from citewell.api.serve import CLOSE_WITHIN_S
from citewell.ingestion.worker import memory_bytes
from citewell.settings import Settings
from tests.redis_servers import make_certificate
from tests.service import ROOT, Live, free_port

DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
KNOWN = {f"CITEWELL_{name.upper()}" for name in Settings.model_fields}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)


# --- the image ------------------------------------------------------------------------------------


def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile's instructions, stage by stage."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    found: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append((word, " ".join(rest.split())))
    return found


def environment() -> dict[str, str]:
    return dict(each.split("=", 1) for word, rest in stages()[-1] if word == "ENV" for each in shlex.split(rest))


def test_hadolint_takes_the_dockerfile() -> None:
    done = run(str(BIN / "hadolint"), "deploy/Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_copied_exists_and_is_all_that_ships() -> None:
    copied = [rest.split() for word, rest in stages()[0] if word == "COPY"]
    sources = {source.rstrip("/") for *given, _ in copied for source in given}
    for source in sources:
        assert (ROOT / source).exists(), source
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    assert {line[1:] for line in ignored if line.startswith("!")} == sources
    ships = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(ships["only-include"]) <= sources


def test_the_last_stage_is_slim_and_runs_as_nobody_in_particular() -> None:
    last = stages()[-1]
    assert last[0][1] == "python:3.11-slim-bookworm"
    assert dict(last)["USER"] == "10001:10001"
    assert [rest.split()[0] for word, rest in last if word == "COPY"] == ["--from=build"]
    assert not re.search(r"apt-get|build-essential|gcc|pip install", " ".join(rest for _, rest in last))


def test_its_settings_exist_and_its_command_is_one_of_ours() -> None:
    ours = {name: value for name, value in environment().items() if name.startswith("CITEWELL_")}
    assert ours.keys() <= KNOWN
    Settings(**{name.removeprefix("CITEWELL_").lower(): value for name, value in ours.items()})  # type: ignore[arg-type]  # as text, as the environment has it
    [program] = json.loads(dict(stages()[-1])["CMD"])
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def test_the_health_check_tells_a_service_that_answers_from_one_that_does_not(live: Live) -> None:
    health = dict(stages()[-1])["HEALTHCHECK"].partition("CMD ")[2]
    port = environment()["CITEWELL_PORT"]
    for where, healthy in ((live.url.rpartition(":")[2], True), (str(free_port()), False)):
        _, *arguments = [each.replace(f":{port}/", f":{where}/") for each in json.loads(health)]
        assert (run(sys.executable, *arguments).returncode == 0) is healthy


def test_the_image_holds_the_run_time_lock_and_the_extras_of_a_server() -> None:
    run_time, image = ((ROOT / "requirements" / name).read_text() for name in ("run.txt", "image.txt"))
    assert "\n-r run.txt\n" in image
    names = set(re.findall(r"^(\S+)==", run_time + image, re.MULTILINE))
    assert {"opentelemetry-exporter-otlp-proto-http", "mcp", "langchain-anthropic", "langchain-weaviate"} <= names
    assert not names & {"torch", "streamlit", "pytest", "kubernetes"}


# --- compose --------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def test_the_compose_file_follows_its_schema() -> None:
    done = run(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_services_fit_together() -> None:
    whole = compose()
    services = whole["services"]
    assert services["citewell"]["deploy"]["replicas"] == 2
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in whole["volumes"] or source.startswith("$") or (DEPLOY / source).exists(), (
                f"{name}: {source}"
            )
        for other in service.get("depends_on", {}):
            assert "healthcheck" in services[other]
        if "profiles" not in service and "build" not in service:
            assert re.search(r":v?\d+\.\d+", service["image"]), f"{name} names no version"
            assert "healthcheck" in service
    ours = services["citewell"]
    assert [name for name, each in services.items() if "env_file" in each] == ["citewell", "keys", "ingest"], (
        "nobody else needs the model's key"
    )
    assert {name for name in ours["environment"] if name.startswith("CITEWELL_")} <= KNOWN
    assert ours["read_only"] is True
    assert services["chroma"]["image"] == f"chromadb/chroma:{version('chromadb')}"


def test_its_grace_outlasts_the_drain() -> None:
    ours = compose()["services"]["citewell"]
    grace = int(ours["stop_grace_period"].removesuffix("s"))
    assert grace > ours["environment"]["CITEWELL_DRAIN_NOTICE_S"] + ours["environment"]["CITEWELL_DRAIN_S"] + CLOSE_WITHIN_S  # fmt: skip


def test_no_file_holds_a_secret() -> None:
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file():
            found = re.findall(
                r"(?im)^.*(?:password|api_key|secret|token)\s*[:=]\s*['\"]?[\w-]{6,}.*$", path.read_text()
            )
            assert found == [], path


def test_the_compose_prometheus_finds_the_replicas() -> None:
    [job] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    [found] = job["dns_sd_configs"]
    assert (job["job_name"], found["names"], str(found["port"])) == ("citewell", ["citewell"], environment()["CITEWELL_PORT"])  # fmt: skip


# --- nginx ----------------------------------------------------------------------------------------


def test_the_proxy_lets_through_what_the_service_takes_and_waits_as_long_as_it_may() -> None:
    text = re.sub(r"\s*#.*", "", (DEPLOY / "nginx.conf").read_text())
    said = dict(re.findall(r"^\s*(\w+)\s+(\S.*);$", text, re.MULTILINE))
    settings = Settings()
    assert int(said["client_max_body_size"].removesuffix("m")) * 1_000_000 >= settings.max_source_bytes
    assert int(said["proxy_read_timeout"].removesuffix("s")) > settings.thread_wait_s + settings.turn_timeout_s
    headers = dict(re.findall(r"proxy_set_header (\S+) (\S+);", text))
    assert headers["Host"] == "$http_host", "a page's Origin is compared with it"
    assert {"X-Forwarded-For", "X-Forwarded-Proto", "Upgrade", "Connection"} <= headers.keys()
    assert f"server 127.0.0.1:{settings.port} max_fails=0;" in text


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx on the PATH (Debian's package nginx-light has it)")
def test_nginx_reads_the_file(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    text = (DEPLOY / "nginx.conf").read_text().replace("listen 443 ssl", f"listen 127.0.0.1:{free_port()} ssl")
    text = re.sub(r"/etc/ssl/\S+\.pem", str(certificate), re.sub(r"/etc/ssl/\S+\.key", str(key), text))
    whole = tmp_path / "nginx.conf"
    kept = [f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    http = "\n".join(["access_log off;", *kept, text])
    whole.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ {http} }}")
    read = subprocess.run(["nginx", "-t", "-p", tmp_path, "-c", whole], capture_output=True, text=True)
    assert read.returncode == 0, read.stderr


# --- Kubernetes -----------------------------------------------------------------------------------


def manifests() -> list[dict[str, Any]]:
    folder = DEPLOY / "kubernetes"
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {*names, "kustomization.yaml"} == {path.name for path in folder.iterdir()}
    return [each for name in names for each in yaml.safe_load_all((folder / name).read_text())]


@pytest.mark.parametrize("manifest", manifests(), ids=lambda manifest: str(manifest["kind"]))
def test_each_manifest_follows_its_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.37", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest | {"spce": {}}, "1.37", strict=True)


def test_the_deployment_drains_and_runs_with_few_rights() -> None:
    [deployment] = [each for each in manifests() if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [generated] = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["configMapGenerator"]
    settings = dict(each.split("=", 1) for each in generated["literals"])
    assert settings.keys() <= KNOWN
    assert pod["terminationGracePeriodSeconds"] > int(settings["CITEWELL_DRAIN_NOTICE_S"]) + int(settings["CITEWELL_DRAIN_S"]) + CLOSE_WITHIN_S  # fmt: skip
    readiness = container["readinessProbe"]
    assert readiness["httpGet"]["path"] == "/readyz"
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < int(settings["CITEWELL_DRAIN_NOTICE_S"])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    for_reading = memory_bytes(int(settings["CITEWELL_MAX_SOURCE_BYTES"]))  # an upload can be made to need all of it
    assert int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 30 >= (3 << 29) + for_reading
    assert {"/data", "/tmp", "/keys"} == {mount["mountPath"] for mount in container["volumeMounts"]}
    assert "replicas" not in deployment["spec"], "the autoscaler decides"
    [volume] = [each for each in manifests() if each["kind"] == "PersistentVolumeClaim"]
    [together] = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert (volume["spec"]["accessModes"], together["topologyKey"]) == (["ReadWriteOnce"], "kubernetes.io/hostname")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert together["labelSelector"]["matchLabels"] == labels
    for each in manifests():
        chosen = each["spec"].get("selector")
        if chosen is not None:
            assert chosen.get("matchLabels", chosen) == labels, each["kind"]


def test_kustomize_builds_them() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on the PATH")
    done = run(kubectl, "kustomize", "deploy/kubernetes")
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(manifests()) + 1
    for manifest in built:
        kubernetes_validate.validate(manifest, "1.37", strict=True)
