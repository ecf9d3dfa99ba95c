"""docker-compose.yml as compose itself resolves it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
EVERYWHERE = {"redis", "prometheus", "grafana", "api"}
ONE_SHOT = {"models", "models-gpu"}


def resolved(*profiles: str) -> Json:
    options = [part for profile in profiles for part in ("--profile", profile)]
    done = subprocess.run(
        ["docker-compose", "--file", "docker-compose.yml", *options, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


ALL = resolved("cpu", "gpu")["services"]


@pytest.mark.parametrize(
    ("profile", "more"), [("cpu", {"models", "worker", "serve"}), ("gpu", {"models-gpu", "worker-gpu", "serve-gpu"})]
)
def test_a_profile_brings_up_everything_for_its_kind_of_machine(profile: str, more: set[str]) -> None:
    services = resolved(profile)["services"]
    assert set(services) == EVERYWHERE | more
    for name in more:
        assert services[name]["build"]["target"] == f"worker-{profile}"
    if profile == "gpu":
        for name in ("worker-gpu", "serve-gpu"):
            devices = services[name]["deploy"]["resources"]["reservations"]["devices"]
            assert devices == [{"capabilities": ["gpu"], "driver": "nvidia", "count": -1}]
            assert services[name]["networks"]["default"]["aliases"] == [name.removesuffix("-gpu")]


@pytest.mark.parametrize("name", ALL)
def test_a_service_is_limited_restarted_and_stripped_of_privileges(name: str) -> None:
    service = ALL[name]
    assert int(service["deploy"]["resources"]["limits"]["memory"]) > 0
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert not service.get("privileged")


@pytest.mark.parametrize("name", [name for name in ALL if name not in ONE_SHOT])
def test_a_service_says_whether_it_is_healthy(name: str) -> None:
    assert ALL[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_what_is_published_is_published_to_this_machine_only_and_redis_not_at_all() -> None:
    published = {name: service["ports"] for name, service in ALL.items() if service.get("ports")}
    assert set(published) == {"api", "prometheus", "grafana"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}


def test_models_are_read_only_for_everyone_but_who_makes_them() -> None:
    for name, service in ALL.items():
        for volume in service.get("volumes", []):
            if volume["target"] == "/srv/models":
                assert volume.get("read_only", False) is (name not in ONE_SHOT), name


def test_a_folder_of_ones_own_takes_the_place_of_the_models_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMOSTAT_MODELS_DIR", str(tmp_path))
    volumes = resolved("cpu")["services"]["worker"]["volumes"]
    assert [volume for volume in volumes if volume["target"] == "/srv/models"] == [
        {"type": "bind", "source": str(tmp_path), "target": "/srv/models", "read_only": True}
        | {"bind": {"create_host_path": True}}
    ]


def test_no_secret_stands_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(?i)password: *[^/\s]|redis://[^$]*:[^$]*@", text)
    assert {secret["file"].removeprefix(f"{ROOT}/") for secret in resolved("cpu")["secrets"].values()} == {
        f"secrets/{name}" for name in ("redis_url", "redis_acl", "scrape_key", "grafana_password")
    }


def test_every_variable_is_a_setting() -> None:
    from app.settings import Settings

    known = {f"HEMOSTAT_{name.upper()}" for name in Settings.model_fields} | {"HEMOSTAT_REDIS_URL_FILE"}
    for service in ALL.values():
        assert {name for name in service.get("environment", {}) if name.startswith("HEMOSTAT_")} <= known


def test_images_of_others_have_a_version() -> None:
    images = [service["image"] for service in ALL.values() if "image" in service and "build" not in service]
    assert len(images) == 3
    assert all(re.search(r":v?\d+\.\d+", image) for image in images)


def test_what_is_mounted_from_here_is_here() -> None:
    for service in ALL.values():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind" and volume["target"] != "/srv/keys":
                assert Path(volume["source"]).exists()
                assert volume["read_only"]


def test_the_api_alone_has_the_file_of_keys_in_a_folder_that_it_may_change() -> None:
    (volume,) = [one for one in ALL["api"]["volumes"] if one["target"] == "/srv/keys"]
    assert volume["source"] == str(ROOT / "secrets" / "keys")
    assert not volume.get("read_only", False)
    assert ALL["api"]["environment"]["HEMOSTAT_API_KEYS_FILE"] == "/srv/keys/api_keys"
    for name, service in ALL.items():
        if name != "api":
            assert "HEMOSTAT_API_KEYS_FILE" not in service.get("environment", {})
            assert "/srv/keys" not in {one["target"] for one in service.get("volumes", [])}
