"""An import that is broken off, with a program in its place that writes as it does and does as the test says."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import models
from app.cli.interruption import Terminated, raise_on_sigterm
from app.cli.models import models_app, run_import
from app.contracts.errors import HemostatError
from app.models.registry import load_registry
from tests.support.worker import gone, wait_for

IMPORT = f"""#!{sys.executable}
import os, pathlib, signal, sys, tempfile, time
folder = pathlib.Path(sys.argv[-1])
here = pathlib.Path(__file__).parent
sys.path.insert(0, {str(Path(models.__file__).parents[2])!r})
from app.models.staging import staging_prefix
signal.signal(signal.SIGTERM, lambda *_: (here / "told").touch())
folder.parent.mkdir(exist_ok=True)
staging = pathlib.Path(tempfile.mkdtemp(prefix=staging_prefix(folder, os.getpid()), dir=folder.parent))
(staging / "model.safetensors").write_text("half")
(here / "pid.part").write_text(str(os.getpid()))
"""
STUBBORN = """
(here / "pid.part").rename(here / "pid")
while True:
    time.sleep(1)
"""
KILLED = """
os.kill(os.getpid(), signal.SIGKILL)
"""
OTHERS = (".tiny-1-zzzzzzzz", ".tiny-b-zzzzzzzz")


@pytest.fixture
def folder(tmp_path):
    """Where the import writes to; other imports write beside it."""
    for name in OTHERS:
        (tmp_path / "models" / name).mkdir(parents=True)
    return tmp_path / "models" / "tiny"


def stand_in(monkeypatch, folder, does):
    """The program; answers the folder with its notes: its process id once it is at work, and that it got SIGTERM."""
    program = folder.parent.parent / "import"
    program.write_text(IMPORT + does)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return program.parent


def send(notes, *numbers):
    """Sends the first signal once the import works, the others once it has been told to end."""

    def sending():
        for number, awaited in zip(numbers, ("pid", "told"), strict=False):
            wait_for((notes / awaited).exists, what=awaited)
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=sending)
    thread.start()
    return thread


def interrupted(monkeypatch, folder, does, *numbers):
    """What an import raises that gets these signals, and the process id that it had."""
    notes = stand_in(monkeypatch, folder, does)
    raise_on_sigterm()
    sender = send(notes, *numbers)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_import("source.gguf", folder)
    sender.join()
    return caught.type, int((notes / "pid").read_text())


@pytest.mark.usefixtures("signals_as_before")
@pytest.mark.parametrize(
    ("numbers", "patience_s", "raised"),
    [
        ((signal.SIGTERM, signal.SIGTERM), 60.0, Terminated),
        ((signal.SIGINT, signal.SIGINT), 60.0, KeyboardInterrupt),
        ((signal.SIGTERM,), 0.2, Terminated),
    ],
    ids=["SIGTERM twice", "Ctrl-C twice", "time is up"],
)
def test_an_import_that_does_not_end_is_killed_and_what_it_wrote_is_removed(
    monkeypatch, capsys, folder, numbers, patience_s, raised
):
    monkeypatch.setattr(models, "BREAK_OFF_S", patience_s)
    found, pid = interrupted(monkeypatch, folder, STUBBORN, *numbers)
    assert found is raised
    assert gone(pid)
    assert sorted(one.name for one in folder.parent.iterdir()) == sorted(OTHERS)
    assert "the same command starts it again" in capsys.readouterr().err


def test_an_import_that_the_system_kills_leaves_nothing(monkeypatch, folder):
    stand_in(monkeypatch, folder, KILLED)
    with pytest.raises(HemostatError):
        run_import("source.gguf", folder)
    assert sorted(one.name for one in folder.parent.iterdir()) == sorted(OTHERS)


@pytest.fixture
def imports(monkeypatch, tmp_path):
    """What is imported with HEMOSTAT_HOME at `tmp_path`, where `taken` and `gone` are registered and one.gguf lies."""
    found: list[tuple[str, Path]] = []
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path))
    monkeypatch.delenv("HEMOSTAT_MODELS", raising=False)
    monkeypatch.setattr(models, "run_import", lambda source, folder: found.append((source, folder)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "models.toml").write_text('[models.taken]\npath = "mine"\n[models.gone]\npath = "nothing"\n')
    (tmp_path / "one.gguf").touch()
    return found


def test_what_cannot_be_registered_is_not_imported(imports, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "models.toml").read_text()
    for arguments, part in (
        (["one.gguf", "--alias", "org/model"], "'org/model'"),
        (["one.gguf", "--alias", "."], "'.'"),
        (["one.gguf", "--alias", ""], "''"),
        (["one.gguf", "--alias", "taken"], "taken"),
        (["two.gguf"], "two.gguf"),
        (["--demo", "--alias", "mine"], "--alias"),
        (["one.gguf", "--demo"], "file"),
    ):
        assert part in str(CliRunner().invoke(models_app, ["import-gguf", *arguments]).exception)
    assert not imports
    assert (tmp_path / "models.toml").read_text() == before


@pytest.mark.parametrize(("alias", "options"), [("new", []), ("gone", []), ("taken", ["--replace"])])
def test_an_alias_is_taken_over_where_it_is_free_leads_nowhere_or_is_to_be_replaced(imports, tmp_path, alias, options):
    source, folder = str(tmp_path / "one.gguf"), tmp_path / "models" / alias
    answer = CliRunner().invoke(models_app, ["import-gguf", source, "--alias", alias, *options])
    assert answer.exit_code == 0
    assert imports == [(source, folder)]
    assert load_registry(tmp_path / "models.toml").resolve(alias).path == folder
