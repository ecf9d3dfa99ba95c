"""The command line knows whose service answers where its settings point, and uses no other home's unasked."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.contracts.errors import ErrorCode, HemostatError
from tests.integration.app.conftest import Server


@pytest.fixture
def up(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    server.start()
    monkeypatch.setenv("HEMOSTAT_PORT", server.url.rpartition(":")[2])
    monkeypatch.setenv("HEMOSTAT_HOME", str(server.settings.home))
    monkeypatch.setenv("HEMOSTAT_MODELS", "/nowhere/models.toml")  # what is listed is the service's
    monkeypatch.delenv("HEMOSTAT_URL", raising=False)
    return server


def test_the_service_of_the_same_home_is_used_and_named(up: Server) -> None:
    done = CliRunner().invoke(app, ["models", "list", "--json"])
    assert [one["alias"] for one in json.loads(done.stdout)] == ["tiny"]
    assert up.url in done.stderr
    assert str(up.settings.home) in done.stderr


@pytest.mark.parametrize("words", [["models", "list"], ["jobs", "list"], ["deploy", "list"], ["report", "diag_a"]])
def test_another_homes_service_is_refused(
    up: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    CliRunner().invoke(app, ["jobs", "list"])  # the service has made the id of its home
    other = tmp_path / "other"
    other.mkdir()
    for instance in (None, "0123456789abcdef"):
        if instance:
            (other / "instance").write_text(instance)
        monkeypatch.setenv("HEMOSTAT_HOME", str(other))
        refused = CliRunner().invoke(app, words).exception
        assert isinstance(refused, HemostatError)
        assert (refused.code, str(up.settings.home) in refused.detail) == (ErrorCode.INVALID_REQUEST, True)


def test_another_homes_service_is_used_if_it_is_named(
    up: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path / "other"))
    done = CliRunner().invoke(app, ["models", "list", "--json", "--url", up.url])
    assert [one["alias"] for one in json.loads(done.stdout)] == ["tiny"]


def test_another_path_of_a_home_is_the_same_home(up: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(up.settings.home)
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path / "link"))
    assert CliRunner().invoke(app, ["jobs", "list"]).exit_code == 0


def test_without_a_service_the_models_of_the_file_are_listed(up: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    up.stop()
    shutil.copy(up.settings.models_file, up.settings.home / "own.toml")
    monkeypatch.setenv("HEMOSTAT_MODELS", str(up.settings.home / "own.toml"))
    done = CliRunner().invoke(app, ["models", "list", "--json"])
    assert [one["alias"] for one in json.loads(done.stdout)] == ["tiny"]
