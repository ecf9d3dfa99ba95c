"""Models as a command names them: alias, folder, hub id; and `hemostat models add`."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.configuration import settings
from app.cli.main import app
from app.cli.models import models_app
from app.cli.naming import alias_of
from app.contracts.errors import ErrorCode, HemostatError
from app.models.registry import Snapshot, load_registry, register
from tests.support.hub import SHA, serving


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEMOSTAT_PORT", "1")  # no service answers there
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HEMOSTAT_MODELS", "HEMOSTAT_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def cached(tmp_path, tiny):
    """A hub id whose snapshot is in the local cache."""
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / SHA).symlink_to(tiny(), target_is_directory=True)
    return "org/name"


def named(written, **options):
    return alias_of(written, settings(), url=None, **options)


def target(home, alias):
    return load_registry(home / "models.toml").resolve(alias).target


def refused(written):
    with pytest.raises(HemostatError) as caught:
        named(written)
    return caught.value


def test_a_folder_gets_its_name_as_alias_and_keeps_it(home, tiny, tmp_path, monkeypatch):
    (tmp_path / "My model").symlink_to(tiny(), target_is_directory=True)
    folder = tiny()
    assert named(str(folder)) == folder.name
    assert target(home, folder.name) == folder
    monkeypatch.chdir(folder.parent)
    for same in (folder.name, f"./{folder.name}", str(tmp_path / "My model"), f"{folder}/"):
        assert named(same) == folder.name
    assert load_registry(home / "models.toml").aliases == (folder.name,)


def test_two_folders_of_one_name_have_two_aliases(home, tiny, tmp_path):
    found = []
    for kind in ("llama", "qwen2"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "model").symlink_to(tiny(kind), target_is_directory=True)
        # A link to another place is that place: each target has another content here.
        found.append(named(str(tmp_path / kind / "model")))
    assert len(set(found)) == 2
    assert {Path(str(target(home, alias))).resolve() for alias in found} == {tiny("llama"), tiny("qwen2")}


@pytest.mark.parametrize("written", ["org/name", "org/name@main", f"org/name@{SHA}"])
def test_a_hub_id_of_the_local_cache_is_pinned_to_its_commit(home, cached, written):
    assert named(written) == named(cached) == "name"
    assert target(home, "name") == Snapshot("org/name", SHA)


def test_what_is_neither_a_folder_nor_cached_is_refused(home, cached):
    for written in ("./nowhere", "a/b/c", "org/absent", "org/name@v2", "~nobody/x", "x/" + "y" * 5000):
        assert refused(written).code is ErrorCode.CHECKPOINT_NOT_FOUND
    assert not (home / "models.toml").exists()


def test_a_bad_checkpoint_gets_no_alias(home, tmp_path):
    (tmp_path / "empty").mkdir()
    assert refused(str(tmp_path / "empty")).code is ErrorCode.CHECKPOINT_INCOMPLETE
    assert not (home / "models.toml").exists()


def test_a_model_is_added_and_listed_at_once(home, tiny):
    assert CliRunner().invoke(models_app, ["add", "mine", str(tiny())]).exit_code == 0
    listed = json.loads(CliRunner().invoke(models_app, ["list", "--json"]).stdout)
    assert listed == [{"alias": "mine", "from": str(tiny()), "dtype": "bfloat16"}]


def test_a_model_that_cannot_be_added_changes_nothing(home, tiny):
    register(home / "models.toml", "taken", tiny())
    before = (home / "models.toml").read_text()
    for words, part in (
        (["taken", "."], "taken"),
        (["a b", "."], "a b"),
        (["new", "./nowhere"], "./nowhere"),
        (["new", "org/absent"], "org/absent"),
    ):
        answer = CliRunner().invoke(models_app, ["add", *words])
        assert isinstance(answer.exception, HemostatError)
        assert part in answer.exception.detail
    assert (home / "models.toml").read_text() == before


def test_an_alias_that_is_taken_is_replaced_when_asked(home, tiny, cached):
    register(home / "models.toml", "mine", tiny("qwen2"))
    assert CliRunner().invoke(models_app, ["add", "mine", cached, "--replace"]).exit_code == 0
    assert target(home, "mine") == Snapshot("org/name", SHA)


def test_models_that_are_added_at_the_same_time_are_all_kept(tmp_path):
    file, names = tmp_path / "models.toml", [f"m{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: register(file, name, tmp_path / name), names))
    assert load_registry(file).aliases == tuple(sorted(names))


def test_an_alias_that_another_command_took_meanwhile_is_not_taken_over(tmp_path):
    file = tmp_path / "models.toml"
    register(file, "model", tmp_path / "one", replace=False)
    register(file, "model", tmp_path / "one", replace=False)  # the same
    with pytest.raises(HemostatError, match="in the meantime"):
        register(file, "model", tmp_path / "other", replace=False)
    assert load_registry(file).resolve("model").target == tmp_path / "one"


# --- from a hub, by a process of its own: the library reads HF_ENDPOINT when it is imported


@pytest.fixture
def hub(tiny):
    with serving() as found:
        found.files["org/remote"] = {file.name: file.read_bytes() for file in tiny().iterdir() if file.is_file()}
        found.files["org/remote"]["modeling.py"] = b"raise SystemExit"
        yield found


def run(hub, *words, offline="0"):
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "app.cli.main", "models", "add", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_hub_id_is_downloaded_only_when_asked_and_goes_on_where_it_stopped(home, hub, tmp_path):
    done = run(hub, "mine", "org/remote")
    assert (done.returncode, hub.asked) == (2, [])
    assert "--download" in done.stderr
    done = run(hub, "mine", "org/remote", "--download")
    assert done.returncode == 0, done.stderr
    assert target(home, "mine") == Snapshot("org/remote", SHA)
    assert not list((tmp_path / "hub").rglob("*.py"))
    (weights,) = (tmp_path / "hub").rglob("snapshots/*/*.safetensors")
    weights.resolve().unlink()
    weights.unlink()
    hub.asked.clear()
    done = run(hub, "again", "org/remote", "--download")
    assert done.returncode == 0, done.stderr
    assert weights.is_file()
    whole = [path for path in hub.paths if "/resolve/" in path and not path.endswith(".safetensors")]
    assert whole == []  # the other files are there


@pytest.mark.parametrize(("written", "offline", "status"), [("org/absent", "0", 2), ("org/remote", "1", 4)])
def test_a_download_that_fails_adds_nothing(home, hub, written, offline, status):
    done = run(hub, "mine", written, "--download", offline=offline)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "models.toml").exists()


def test_a_refused_submission_writes_no_alias(home, tiny):
    assert isinstance(CliRunner().invoke(app, ["compare", str(tiny())]).exception, HemostatError)
    assert not (home / "models.toml").exists()
