"""`make setup` after one that did not end, by the Makefile as it is. Nothing is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = ("torch", "api", "embedded", "demo", "dev", "worker-cpu", "worker-gpu")
# The first package is there, and then the setup ends.
BEGUN = "import os, pathlib, signal, sys\npathlib.Path('.venv/first-package').touch()\n"
ENDS = {"failed": "sys.exit(1)\n", "interrupted": "os.killpg(os.getpgrp(), signal.SIGINT)\nsignal.pause()\n"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in (*(f"requirements/{name}.lock" for name in LOCKS), "requirements/torch.in", "pyproject.toml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "deploy").mkdir()
    executable(tmp_path / "deploy/prerequisites.sh", "exit 0")
    executable(tmp_path / "python", f'mkdir -p "$3/bin" && ln -s {sys.executable} "$3/bin/python"')  # -m venv FOLDER
    return tmp_path


def executable(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def begin(checkout: Path, worker: str, end: str) -> None:
    """A setup that ends after its first package."""
    (checkout / "deploy/install.py").write_text(BEGUN + ENDS[end])
    command = ["make", "setup", f"WORKER={worker}", f"PYTHON={checkout / 'python'}"]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        command, cwd=checkout, env=environment, start_new_session=True, capture_output=True, check=False, timeout=60
    )
    assert done.returncode != 0


@pytest.mark.parametrize("end", ENDS)
def test_the_packages_of_a_setup_that_did_not_end_are_not_mixed_with_those_of_another_worker(
    checkout: Path, end: str
) -> None:
    begin(checkout, "cpu", end)
    (checkout / ".venv/of-cpu").touch()
    begin(checkout, "cpu", end)
    assert (checkout / ".venv/of-cpu").exists(), "the same worker goes on with it"
    begin(checkout, "gpu", end)
    assert [file.name for file in (checkout / ".venv").iterdir() if file.name == "of-cpu"] == []
    assert (checkout / ".venv/first-package").exists()
