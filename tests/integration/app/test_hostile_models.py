"""The API as a process, asked about models whose files were made to do it harm: each is refused, nobody waits."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.integration.app.conftest import Server, compare
from tests.support.copies import copier
from tests.support.hostile_models import HOSTILE_MODELS, listed

JOBS = "/v1/diagnosis/jobs"


@pytest.fixture
def models(settings: Settings, tiny: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    """`models(alias)`: a copy of the tiny model under that alias."""
    copy = copier(tiny, tmp_path)

    def add(alias: str) -> Path:
        folder = copy("llama", name=alias, seed=1)
        with settings.models_file.open("a") as stream:
            stream.write(f"[models.{alias}]\npath = {json.dumps(str(folder))}\n")
        return folder

    return add


def ask(server: Server, alias: str) -> httpx.Response:
    body = compare(candidate={"model": alias}, dry_run=True)
    return httpx.post(f"{server.url}{JOBS}", json=body, timeout=120)


def test_hostile_files_are_refused_and_the_next_one_is_answered(server: Server, models: Callable[[str], Path]) -> None:
    for case, (change, _) in HOSTILE_MODELS.items():
        change(models(case))
    models("sound")
    server.start()
    for case, (_, code) in HOSTILE_MODELS.items():
        answer = ask(server, case)
        assert answer.status_code == (422 if code else 200), (case, answer.text)
        if code:
            assert (answer.json()["code"], bool(answer.json()["detail"])) == (code, True)
        assert httpx.get(f"{server.url}/livez", timeout=10).status_code == 200
    assert ask(server, "sound").status_code == 200


def test_others_are_answered_while_a_hostile_file_is_looked_into(server: Server, models: Callable[[str], Path]) -> None:
    listed(models("hostile"))
    models("sound")
    server.start()
    found: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: found.append(ask(server, "hostile")))
    asking.start()
    answered = 0
    while asking.is_alive():
        assert httpx.get(f"{server.url}/livez", timeout=10).status_code == 200
        assert ask(server, "sound").status_code == 200
        answered += 1
    assert answered
    assert found[0].json()["code"] == "checkpoint_unsupported"
