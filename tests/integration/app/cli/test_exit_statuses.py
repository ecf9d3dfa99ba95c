"""Every command ends with the statuses of `Exit`: what the service refuses is 2, and a service that is away is 4."""

import shlex
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from app.cli.main import app, main
from app.cli.output import Exit
from tests.integration.app.conftest import Server
from tests.support.ports import free_port

RECIPE = "--recipe quantize.rtn:bits=4"
# Each command that talks to a service, with arguments that name what no service has.
ASKING = {
    "compare": f"-r nobody {RECIPE}",
    "attribute": f"-r nobody {RECIPE}",
    "calibrate": f"-r nobody {RECIPE}",
    "mitigate": f"-r nobody {RECIPE}",
    "tasks": f"-r nobody {RECIPE}",
    "trajectory": f"-r nobody {RECIPE}",
    "sweep": "-r nobody --recipe quantize.rtn --knob bits=2,4",
    "surface": "-r nobody --recipe quantize.rtn --knob bits=2,4 --knob group_size=32,64",
    "flips build": f"-r nobody {RECIPE}",
    "diff": "diag_a diag_b",
    "report": "diag_a",
    "jobs list": "--status sleeping",
    "jobs show": "diag_a",
    "jobs watch": "diag_a",
    "jobs cancel": "diag_a",
    "jobs fetch": "diag_a",
    "deploy create": "d --model nobody",
    "deploy show": "nobody",
    "deploy set": "nobody --replicas 2",
    "deploy promote": "nobody cal-0000000000000000",
    "deploy rollback": "nobody",
    "deploy freeze": "nobody",
    "deploy unfreeze": "nobody",
    "deploy delete": "nobody",
    "deploy events": "nobody",
    "profiles show": "cal-0000000000000000",
    "profiles delete": "cal-0000000000000000",
}
# These ask for a list alone: a service has nothing to refuse.
LISTING = {"deploy list": "", "profiles list": "", "models list": ""}
# These work on this machine, without a service. What they cannot use is 2.
ALONE = {
    "models check": "nobody",
    "models add": "mine nowhere",
    "models import-gguf": "nowhere.gguf",
    "threshold": "nowhere.json",
    "flips predict": "0.1",
    "keys add": "someone --scope read",
    "keys list": "",
    "keys revoke": "someone",
    "schema": "nonsense",
    "errors": "nonsense",
}
OWN_SERVICE = {"up", "demo", "serve", "doctor", "version"}


def _leaves(command: Any, name: str = "") -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield name
        return
    for part, inner in command.commands.items():
        yield from _leaves(inner, f"{name} {part}".strip())


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The status that the command ends with."""
    monkeypatch.setattr(sys, "argv", ["hemostat", *words])
    monkeypatch.setattr("app.cli.main.raise_on_sigterm", lambda: None)
    with pytest.raises(SystemExit) as ending:
        main()
    return int(ending.value.code or 0)


def test_every_command_is_looked_at() -> None:
    assert set(_leaves(typer.main.get_command(app))) == {*ASKING, *LISTING, *ALONE, *OWN_SERVICE}


def test_what_the_service_refuses_is_two(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.start()
    monkeypatch.setenv("HEMOSTAT_HOME", str(server.settings.home))
    found = {
        name: ended(monkeypatch, *name.split(), *shlex.split(arguments), "--url", server.url)
        for name, arguments in ASKING.items()
    }
    assert found == dict.fromkeys(ASKING, Exit.REFUSED)


def test_a_service_that_does_not_answer_is_four(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    asking = ASKING | LISTING
    found = {
        name: ended(monkeypatch, *name.split(), *shlex.split(arguments), "--url", url)
        for name, arguments in asking.items()
    }
    assert found == dict.fromkeys(asking, Exit.FAILED)


def test_wrong_usage_is_two(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (*ASKING, *LISTING, *ALONE, *OWN_SERVICE)
    found = {name: ended(monkeypatch, *name.split(), "--no-such-option") for name in names}
    assert found == dict.fromkeys(names, Exit.REFUSED)


def test_what_a_command_without_a_service_cannot_use_is_two(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMOSTAT_HOME", str(server.settings.home))
    monkeypatch.setenv("HEMOSTAT_MODELS", str(server.settings.models_file))
    found = {name: ended(monkeypatch, *name.split(), *shlex.split(words)) for name, words in ALONE.items()}
    assert found == dict.fromkeys(ALONE, Exit.REFUSED)


@pytest.mark.parametrize(
    "words", ["compare -r a --fail-on mild --self-check", "tasks -r a --fail-on worse --self-check"]
)
def test_a_self_check_satisfies_no_rule(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    assert ended(monkeypatch, *words.split()) == Exit.REFUSED


def test_a_fault_of_the_command_itself_is_four_and_not_a_rule_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.main.settings", lambda: 1 / 0)
    assert ended(monkeypatch, "doctor") == Exit.FAILED
