"""The installation's progress, of a real pip and wheels made by hand; no index is asked."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[3] / "deploy" / "install.py"


def entry(wheel: Path) -> str:
    return f"{wheel.name[:3]}==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Two packages of nothing, and a lock that pins them."""
    for name in ("one", "two"):
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    one, two = (entry(wheel) for wheel in sorted(tmp_path.glob("*.whl")))
    (tmp_path / "good.lock").write_text(f"# pinned\n{one}{two}")
    (tmp_path / "bad.lock").write_text(one + two.replace("two", "three"))
    (tmp_path / "changed.lock").write_text(one + two.replace(two[-65:-1], "0" * 64))
    return tmp_path


def install(wheels: Path, lock: str) -> subprocess.CompletedProcess[str]:
    locked = ["--no-deps", "--require-hashes", "-r", str(wheels / lock)]
    target = ["--target", str(wheels / "there"), "--no-index", "--find-links", str(wheels), "--no-cache-dir"]
    return subprocess.run(
        [sys.executable, str(INSTALL), "Installing two", *locked, *target],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_what_is_pinned_is_installed_and_said_in_few_lines(wheels: Path) -> None:
    done = install(wheels, "good.lock")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (wheels / "there").glob("*.py")) == ["one.py", "two.py"]
    assert done.stdout.splitlines()[0] == "Installing two …"
    assert len(done.stdout.splitlines()) <= 3
    assert done.stderr == ""


def test_a_package_that_is_not_there_fails_with_pips_own_words(wheels: Path) -> None:
    done = install(wheels, "bad.lock")
    assert done.returncode != 0
    assert "No matching distribution found for three==1.0" in done.stderr


def test_a_file_that_is_another_than_the_locked_one_is_not_installed(wheels: Path) -> None:
    done = install(wheels, "changed.lock")
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert not (wheels / "there").exists()
