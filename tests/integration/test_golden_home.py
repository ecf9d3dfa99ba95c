"""A home that an earlier build left is opened: what it lists, its reports, its keys, and a job that reuses it."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.client import Client
from app.up import Service, running
from tests.golden.make import ANSWERS, HOME, JOBS, Json, answers_of, settings_at
from workers.distributions.reference_store import FORMAT


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(HOME) as tar:
        tar.extractall(folder, filter="data")
    return folder / "home"


@pytest.fixture(scope="module")
def answers(home: Path) -> Json:
    """What the earlier build answered."""
    found: Json = json.loads(home.with_name(ANSWERS).read_text())
    return found


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    with running(settings_at(home)) as up:
        yield up


def test_lists_and_reports_are_answered_as_before(service: Service, answers: Json) -> None:
    now = answers_of(service.url, answers["key"])
    before = {name: value for name, value in answers.items() if name != "key"}
    assert what_was_there(now, before) == before


def what_was_there(now: Any, before: Any) -> Any:
    """The answer without fields that came later: a client that does not know them reads on."""
    if isinstance(now, dict) and isinstance(before, dict):
        return {name: what_was_there(now[name], before[name]) for name in before if name in now}
    if isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        return [what_was_there(*pair) for pair in zip(now, before, strict=True)]
    return now


def test_what_another_version_stored_is_measured_again(service: Service, home: Path, answers: Json) -> None:
    headers = list(home.glob("references/*/header.json"))
    assert headers
    for header in headers:
        stored = json.loads(header.read_text())
        header.write_text(json.dumps(stored | {"format": "hemostat.hidden/0"}))
    with Client(service.url, api_key=answers["key"]) as client:
        job = client.submit(JOBS[0])
        for _ in client.watch(job["id"]):
            pass
        job = client.job(job["id"])
        assert job["status"] == "succeeded", job["error"]
        report = client.report(job["id"])
    formats = {json.loads(header.read_text())["format"] for header in home.glob("references/*/header.json")}
    assert FORMAT in formats, "states of this version were measured"
    before = next(found for found in answers.values() if "divergence" in found)
    assert report["divergence"]["kl"]["mean"] == pytest.approx(before["divergence"]["kl"]["mean"], rel=0.05)
