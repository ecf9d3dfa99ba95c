"""dclint, from npm, finds nothing in the compose file: no error and no warning."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.support.tools import tool

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "deploy" / "lint"
CACHE = ROOT / ".cache" / "dclint"


def dclint() -> Path:
    """The program, installed as it is locked: again only when the lock has changed."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    program = CACHE / "node_modules" / ".bin" / "dclint"
    installed = CACHE / "package-lock.json"
    if not program.exists() or not installed.exists() or installed.read_bytes() != lock:
        CACHE.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, CACHE / name)
        command = [tool("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CACHE, timeout=240)
        assert done.returncode == 0, f"{' '.join(command)} in {CACHE}:\n{done.stderr}"
    return program


def test_the_compose_file_is_clean() -> None:
    done = subprocess.run(
        [dclint(), "--max-warnings", "0", "docker-compose.yml"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_would_find_something(tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(re.sub(r"prom/prometheus:v[\d.]+", "prom/prometheus", text))
    done = subprocess.run([dclint(), broken], capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_the_lock_names_no_registry() -> None:
    assert "resolved" not in (SOURCE / "package-lock.json").read_text()
