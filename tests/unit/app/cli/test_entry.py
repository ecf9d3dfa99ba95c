"""`hemostat` is told to end before its commands are imported."""

import signal
import subprocess
import sys
import tomllib

import pytest

from tests.support.worker import ROOT

# A signal arrives while typer is looked for, which the commands begin with.
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Interrupting())
from {module} import main
sys.argv = ["hemostat", "version"]
main()
"""


def command():
    """The module that the installed command runs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["hemostat"].partition(":")
    assert function == "main"
    return str(module)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_commands_are_imported_ends_in_one_line(number, status):
    program = PROGRAM.format(number=int(number), module=command())
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert ended.stderr == "interrupted before anything started\n"


def test_without_a_signal_the_command_runs():
    program = f"import sys; from {command()} import main; sys.argv = ['hemostat', 'version']; main()"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip()


def test_nothing_that_takes_time_is_imported_before():
    program = f"import sys; before = set(sys.modules); import {command()}; print(*(set(sys.modules) - before))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {name for name in ended.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert imported == {"app", "app.cli", "app.cli.entry", "app.cli.interruption"}
