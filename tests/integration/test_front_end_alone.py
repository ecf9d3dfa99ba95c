"""The front end works in an environment that holds only its own lock: no torch, no transformers, no vLLM."""

import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


def _entries(name: str) -> list[Requirement]:
    """What a lock pins; the lines behind an entry are its hashes."""
    lines = (ROOT / "requirements" / f"{name}.lock").read_text().splitlines()
    return [Requirement(line.removesuffix("\\")) for line in lines if line[0].isalnum()]


def _locked(name: str) -> dict[str, str]:
    """Packages of a lock that every Python in its range gets, and their versions (those with a marker are left out)."""
    return {one.name: str(one.specifier).removeprefix("==") for one in _entries(name) if one.marker is None}


def _environment(folder: Path) -> Path:
    """A virtual environment with links to the packages of the api lock and to nothing else; its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    for package in sorted(_locked("api")):
        distribution = metadata.distribution(package)
        for top in sorted({file.parts[0] for file in distribution.files or [] if not file.parts[0].startswith("..")}):
            source, link = Path(str(distribution.locate_file(top))), site / top
            if source.exists() and not link.exists() and top != "__pycache__":
                link.symlink_to(source)
    (site / "hemostat.pth").write_text(str(ROOT) + "\n")
    return folder / "bin" / "python"


def test_every_front_end_module_imports_where_torch_and_vllm_are_missing(tmp_path: Path) -> None:
    python = _environment(tmp_path / "venv")
    program = """
import importlib, pkgutil, sys
import app
for name in ("torch", "transformers", "vllm", "scipy", "pyarrow", "safetensors", "numpy"):
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported here: the environment proves nothing")
names = [m.name for m in pkgutil.walk_packages(app.__path__, "app.")]
for name in names:
    importlib.import_module(name)
from app.main import create_app
from app.settings import Settings
assert create_app(Settings()).openapi()["paths"]
print(len(names))
"""
    done = subprocess.run(
        [str(python), "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HEMOSTAT_HOME": str(tmp_path / "home")},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_every_lock_names_one_version_of_a_package() -> None:
    versions: dict[str, set[str]] = {}
    for lock in sorted((ROOT / "requirements").glob("*.lock")):
        for one in _entries(lock.stem):
            versions.setdefault(one.name, set()).add(str(one.specifier))
    assert versions
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_installed_packages_are_the_locked_ones() -> None:
    wanted = _locked("api") | _locked("embedded") | _locked("demo") | _locked("dev")
    found = {package: metadata.version(package) for package in wanted}
    assert found == wanted


def test_pip_check_complains_only_of_what_is_written_down() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    overrides = (ROOT / "requirements" / "overrides.txt").read_text()
    unexplained = [
        line
        for line in done.stdout.splitlines()
        if line != "No broken requirements found." and not any(name in overrides for name in _culprits(line))
    ]
    assert unexplained == []


def _culprits(line: str) -> list[str]:
    """The package that a complaint of `pip check` is about: `A 1 requires B, …` or `A 1 has requirement B==2, …`."""
    words = line.replace(",", "").split()
    verb = words.index("requires") if "requires" in words else words.index("requirement")
    return [words[verb + 1].split("==")[0].split(">")[0].split("<")[0]]
