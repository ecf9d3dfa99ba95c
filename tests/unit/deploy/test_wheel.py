"""`make wheel`: what it builds holds every file of the packages, and runs where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("app", "hemostat", "workers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = ["make", "-o", "setup", "wheel", f"BIN={Path(sys.executable).parent}", f"DIST={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    (made,) = folder.iterdir()
    return made


def test_every_file_of_the_packages_is_in_it(wheel: Path) -> None:
    packages = (file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file())
    files = {str(file.relative_to(ROOT)) for file in packages if file.suffix != ".pyc"}
    assert files - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_its_command_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        "import app, hemostat, workers; from app.cli.entry import main; "
        "print(app.__file__, hemostat.__file__, workers.__file__); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "demo", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    where, _, rest = done.stdout.partition("\n")
    assert where.split() == [str(tmp_path / "site" / name / "__init__.py") for name in PACKAGES]
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo" in rest
