"""docker-compose.yml as compose itself resolves it: what runs, what it may do, what it mounts and whom it reaches."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from tests.support.tools import tool

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
PROFILES = ("cpu", "gpu", "demo", "tls")
EVERYWHERE = {"redis", "prometheus", "grafana", "api"}
OUTSIDE = ("front", "hub")  # the networks that are not internal
RUNTIME = {"/srv/hemostat", "/srv/adapters", "/srv/hub", "/srv/models", "/srv/texts"}
MOUNTS = {
    "api": RUNTIME | {"/srv/keys"},
    "serve": RUNTIME,
    "serve-gpu": RUNTIME,
    "worker": RUNTIME,
    "worker-gpu": RUNTIME,
    "models": {"/srv/models"},
    "redis": {"/data", "/etc/valkey/valkey.conf"},
    "prometheus": {"/prometheus", "/etc/prometheus"},
    "grafana": {"/var/lib/grafana", "/etc/grafana/provisioning", "/etc/hemostat/dashboards"},
    "proxy": {"/etc/hemostat/nginx.conf"},
}
WRITABLE = {"/srv/hemostat", "/srv/keys", "/data", "/prometheus", "/var/lib/grafana"}
SECRETS = {
    "api": {"redis_url"},
    "serve": {"redis_url"},
    "serve-gpu": {"redis_url"},
    "worker": {"redis_url"},
    "worker-gpu": {"redis_url"},
    "models": set[str](),
    "redis": {"redis_acl"},
    "prometheus": {"scrape_key"},
    "grafana": {"grafana_password"},
    "proxy": {"tls_certificate", "tls_key"},
}


@cache
def project(*profiles: str, override: str = "") -> Json:
    """The file with these profiles; `override` is laid over it."""
    files = ["docker-compose.yml", *([override] if override else [])]
    options = [part for name in files for part in ("--file", name)]
    options += [part for profile in profiles for part in ("--profile", profile)]
    done = subprocess.run(
        [tool("docker-compose"), *options, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def services(*profiles: str, override: str = "") -> dict[str, Json]:
    return dict(project(*(profiles or PROFILES), override=override)["services"])


def volumes(service: Json) -> dict[str, Json]:
    return {volume["target"]: volume for volume in service.get("volumes", [])}


def networks(service: Json) -> set[str]:
    return set(service.get("networks") or {})


def names(name: str, service: Json, network: str) -> set[str]:
    """By which names a service is found in a network."""
    return {name, *((service["networks"][network] or {}).get("aliases") or [])}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_profile_brings_up_everything_for_its_kind_of_machine(kind: str) -> None:
    suffix = "" if kind == "cpu" else "-gpu"
    more = {f"worker{suffix}", f"serve{suffix}"}
    found = services(kind)
    assert set(found) == EVERYWHERE | more
    for name in more:
        assert found[name]["build"]["target"] == f"worker-{kind}"
        devices = found[name]["deploy"]["resources"].get("reservations", {}).get("devices")
        assert devices == (None if kind == "cpu" else [{"capabilities": ["gpu"], "driver": "nvidia", "count": -1}])
        for network in found[name]["networks"]:
            assert name.removesuffix("-gpu") in names(name, found[name], network)
    assert set(services(kind, "demo")) - set(found) == {"models"}
    assert set(services(kind, "tls")) - set(found) == {"proxy"}


def test_a_service_is_limited_restarted_and_stripped_of_privileges() -> None:
    for name, service in services().items():
        limits = service["deploy"]["resources"]["limits"]
        assert int(limits["memory"]) > 0, name
        assert 0 < limits["pids"] <= 4096, name
        assert service["read_only"], name
        assert service["restart"] == ("no" if name == "models" else "unless-stopped"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        assert not service.get("privileged"), name


def test_a_service_says_whether_it_is_healthy() -> None:
    for name, service in services().items():
        if name != "models":
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name


def test_what_is_published_is_published_to_this_machine_only_but_for_the_proxy() -> None:
    published = {name: service["ports"] for name, service in services().items() if service.get("ports")}
    assert set(published) == {"api", "prometheus", "grafana", "proxy"}
    proxy = published.pop("proxy")
    assert [(port["host_ip"], port["published"]) for port in proxy] == [("0.0.0.0", "443")]
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}


def test_each_service_mounts_what_it_uses_and_writes_its_own_data_alone() -> None:
    for name, service in services().items():
        mounted = volumes(service)
        assert set(mounted) == MOUNTS[name], name
        writable = {target for target, volume in mounted.items() if not volume.get("read_only")}
        assert writable == ({"/srv/models"} if name == "models" else WRITABLE & set(mounted)), name
        for volume in mounted.values():
            if volume["type"] == "bind" and volume["target"] != "/srv/keys":
                assert Path(volume["source"]).exists()
    assert volumes(services()["api"])["/srv/keys"]["source"] == str(ROOT / "secrets" / "keys")  # by deploy/secrets.sh


def test_each_service_gets_the_secrets_that_it_reads() -> None:
    for name, service in services().items():
        assert {secret["source"] for secret in service.get("secrets", [])} == SECRETS[name], name


def test_the_api_alone_reads_keys() -> None:
    for name, service in services().items():
        assert ("HEMOSTAT_API_KEYS_FILE" in service.get("environment", {})) is (name == "api"), name


def test_every_path_that_a_service_is_told_of_is_mounted_or_a_secret_of_it() -> None:
    for name, service in services().items():
        there = {Path(target) for target in volumes(service)}
        there |= {Path(secret["target"]) for secret in service.get("secrets", [])}
        paths = [Path(value) for value in service.get("environment", {}).values() if value.startswith("/")]
        for path in paths:
            assert there & {path, *path.parents}, (name, path)


def test_texts_adapters_models_and_the_hub_cache_are_read_by_all_that_run_jobs() -> None:
    wanted = {"HEMOSTAT_TEXT_ROOT", "HEMOSTAT_ADAPTER_ROOT", "HEMOSTAT_MODELS", "HF_HUB_CACHE", "HEMOSTAT_HOME"}
    for name, mounts in MOUNTS.items():
        if mounts >= RUNTIME:
            assert wanted <= set(services()[name]["environment"]), name


@pytest.mark.parametrize(
    ("variable", "target"),
    [
        ("HEMOSTAT_MODELS_DIR", "/srv/models"),
        ("HEMOSTAT_TEXT_DIR", "/srv/texts"),
        ("HEMOSTAT_ADAPTER_DIR", "/srv/adapters"),
        ("HEMOSTAT_HUB_DIR", "/srv/hub"),
    ],
)
def test_a_folder_of_ones_own_takes_the_place_of_the_volume_and_is_never_written(
    variable: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    project.cache_clear()
    found = services()
    project.cache_clear()
    for name, mounts in MOUNTS.items():
        if mounts >= RUNTIME:
            volume = volumes(found[name])[target]
            assert (volume["type"], volume["source"], volume["read_only"]) == ("bind", str(tmp_path), True), name
    assert volumes(found["models"])["/srv/models"]["type"] == "volume"


@pytest.mark.parametrize(
    ("name", "variable", "gib"),
    [("worker-gpu", "HEMOSTAT_GPU_WORKER_MEMORY", 32), ("serve-gpu", "HEMOSTAT_GPU_SERVE_MEMORY", 64)],
)
def test_memory_of_what_runs_on_gpus_is_a_variable(
    name: str, variable: str, gib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limits() -> dict[str, int]:
        project.cache_clear()
        return {one: int(found["deploy"]["resources"]["limits"]["memory"]) for one, found in services().items()}

    monkeypatch.delenv(variable, raising=False)
    before = limits()
    assert before[name] == gib << 30
    monkeypatch.setenv(variable, "200g")
    assert limits() == before | {name: 200 << 30}
    project.cache_clear()


def test_no_secret_stands_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(?i)password: *[^/\s]|redis://[^$]*:[^$]*@", text)
    files = {Path(secret["file"]).parent.name for secret in project(*PROFILES)["secrets"].values()}
    assert files == {"secrets"}


def test_every_variable_is_a_setting() -> None:
    known = {f"HEMOSTAT_{name.upper()}" for name in Settings.model_fields} | {"HEMOSTAT_REDIS_URL_FILE"}
    for service in [*services().values(), *services(override="docker-compose.hub.yml").values()]:
        assert {name for name in service.get("environment", {}) if name.startswith("HEMOSTAT_")} <= known


def test_images_of_others_have_a_version() -> None:
    images = [service["image"] for service in services().values() if "image" in service and "build" not in service]
    assert len(images) == 3
    assert all(re.search(r":v?\d+\.\d+", image) for image in images)


# ---- who reaches whom


def outside(found: Json) -> set[str]:
    return {name for name, network in found["networks"].items() if not network.get("internal")}


def test_redis_and_whatever_runs_engines_reach_nothing_outside() -> None:
    found = project(*PROFILES)
    assert outside(found) == {"front"}
    reach = {name for name, service in found["services"].items() if networks(service) & outside(found)}
    assert reach == {"api", "prometheus", "grafana", "proxy"}
    assert found["services"]["models"]["network_mode"] == "none"


def test_redis_is_reached_by_those_who_use_it_alone() -> None:
    found = services()
    assert networks(found["redis"]) == {"back"}
    assert {name for name, service in found.items() if "back" in networks(service)} == {
        name for name, secrets in SECRETS.items() if secrets & {"redis_url", "redis_acl"}
    }


def test_the_hub_is_reached_by_workers_alone_and_only_where_that_is_asked_for() -> None:
    found = project(*PROFILES, override="docker-compose.hub.yml")
    assert outside(found) == {"front", "hub"}
    assert {name for name, one in found["services"].items() if "hub" in networks(one)} == {"worker", "worker-gpu"}
    for name in ("worker", "worker-gpu"):
        before, after = services()[name], found["services"][name]
        assert networks(after) - networks(before) == {"hub"}
        assert after["environment"]["HF_HUB_OFFLINE"] == "0"
        assert {target for target, volume in volumes(after).items() if not volume.get("read_only")} == {
            "/srv/hemostat",
            "/srv/hub",
        }


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_prometheus_reaches_whatever_exports_metrics_and_every_worker_of_it(kind: str) -> None:
    found = services(kind)
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    by_name = {job["job_name"]: job for job in jobs}
    [workers] = by_name["hemostat-worker"]["dns_sd_configs"]  # an address for each container behind the name
    scraped = [(host, str(workers["port"])) for host in workers["names"]]
    assert workers["type"] == "A"
    [api] = by_name["hemostat-api"]["static_configs"]
    scraped += [tuple(target.split(":")) for target in api["targets"]]
    [deployments] = by_name["hemostat-deployments"]["http_sd_configs"]
    assert re.fullmatch(r"http://api:8321/.+", deployments["url"])
    ports = {"api": "HEMOSTAT_PORT", "worker": "HEMOSTAT_WORKER_METRICS_PORT"}
    assert {host for host, _ in scraped} == set(ports)
    for host, port in scraped:
        answering = [
            (name, service)
            for name, service in found.items()
            for network in networks(service) & networks(found["prometheus"])
            if host in names(name, service, network)
        ]
        assert answering, host
        assert all(service["environment"][ports[host]] == port for _, service in answering)
    # Where the agent's processes say that they are:
    [(name, agent)] = [one for one in found.items() if "HEMOSTAT_ADVERTISE_HOST" in one[1].get("environment", {})]
    for other in ("prometheus", "api"):
        shared = networks(agent) & networks(found[other])
        assert any(agent["environment"]["HEMOSTAT_ADVERTISE_HOST"] in names(name, agent, each) for each in shared)


def test_grafana_reads_the_prometheus_that_shares_a_network_with_it() -> None:
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    found = services()
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert "--web.listen-address=0.0.0.0:9090" in found["prometheus"]["command"]
    assert networks(found["grafana"]) & networks(found["prometheus"]) == {"front", "observability"}
