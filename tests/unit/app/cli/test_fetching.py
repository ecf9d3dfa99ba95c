"""Files of a job that are saved here."""

import errno
import json

import pytest
from typer.testing import CliRunner

from app.cli.client import Client
from app.cli.fetching import fetch
from app.cli.main import app
from app.contracts.errors import ErrorCode, HemostatError

LIST = {"data": [{"name": "recipe.json"}, {"name": "treated.parquet"}]}


@pytest.fixture
def client(recorder):
    recorder.answers = [LIST]
    recorder.answer = [{"type": "norm.tweak"}]
    return Client(recorder.url)


def test_all_files_are_saved_where_none_is_named(client, recorder, tmp_path):
    saved = fetch(client, "diag_1", tmp_path / "new")
    assert [path.name for path in saved] == ["recipe.json", "treated.parquet"]
    assert json.loads(saved[0].read_text()) == recorder.answer
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["recipe.json", "treated.parquet"]


def test_the_named_ones_alone_are_asked_for(client, recorder, tmp_path):
    fetch(client, "diag_1", tmp_path, ["recipe.json", "recipe.json"])
    assert [path for _, path in recorder.asked] == [
        "/v1/diagnosis/jobs/diag_1/artifacts",
        "/v1/diagnosis/jobs/diag_1/artifacts/recipe.json",
    ]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_file_that_breaks_off_leaves_the_one_that_was_there(client, tmp_path, monkeypatch, number):
    (tmp_path / "recipe.json").write_text("before")

    def broken_off(_, __, ___, destination):
        destination.write_text("hal")
        raise OSError(number, "No space left on device")

    monkeypatch.setattr(Client, "save_artifact", broken_off)
    with pytest.raises(HemostatError) as caught:
        fetch(client, "diag_1", tmp_path, ["recipe.json"])
    assert caught.value.code == ErrorCode.DISK_FULL
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("recipe.json", "before")]


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", ""])
def test_a_service_cannot_have_a_file_written_elsewhere(recorder, tmp_path, name):
    recorder.answers, recorder.answer = [{"data": [{"name": name}]}], {}
    with pytest.raises(HemostatError) as caught:
        fetch(Client(recorder.url), "diag_1", tmp_path / "folder")
    assert caught.value.code == ErrorCode.PATH_FORBIDDEN
    assert list(tmp_path.iterdir()) == []


def test_the_command_saves_into_a_folder_of_the_jobs_name_and_says_what(recorder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorder.answers, recorder.answer = [LIST], {}
    done = CliRunner().invoke(app, ["jobs", "fetch", "diag_1", "--url", recorder.url], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()] == [
        str(tmp_path / "diag_1" / name) for name in ("recipe.json", "treated.parquet")
    ]
    recorder.answers = [LIST]
    told = CliRunner().invoke(app, ["jobs", "fetch", "diag_1", "recipe.json", "--json", "--url", recorder.url])
    assert json.loads(told.stdout) == {"folder": str(tmp_path / "diag_1"), "files": ["recipe.json"]}
