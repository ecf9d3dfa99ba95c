"""The Dockerfile: linted, and what it copies and installs is there."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "Dockerfile").read_text()
TARGETS = ("api", "worker-cpu", "worker-gpu")


def stage(name: str) -> str:
    return re.split(r"^FROM ", TEXT.partition(f" AS {name}\n")[2], flags=re.MULTILINE)[0]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "Dockerfile"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""


def test_every_target_runs_as_nobody_in_particular_and_says_whether_it_is_healthy() -> None:
    for target in TARGETS:
        found = stage(target)
        assert "\nUSER 10001:10001\n" in found
        assert "\nHEALTHCHECK " in found
        assert found.index("USER ") > found.rindex("RUN ")


def test_packages_are_the_locked_ones_and_torch_comes_first() -> None:
    for target in TARGETS:
        found = stage(target)
        locks = re.findall(r"-r (\S+)", found)
        own = {"api": ["/tmp/api.lock", "/tmp/diff.lock"]}
        wanted = own.get(target, ["/tmp/torch.in", "/tmp/api.lock", f"/tmp/{target}.lock"])
        assert locks == wanted
        assert all("--no-deps" in line for line in found.splitlines() if ".lock" in line and "pip" in line)


def test_what_differences_of_reports_need_is_beside_the_api_as_it_is_locked() -> None:
    [pattern] = re.findall(r"grep -E '(.+)' /tmp/worker-cpu.lock > /tmp/diff.lock", stage("api"))
    locked = (ROOT / "requirements" / "worker-cpu.lock").read_text().splitlines()
    found = [line.partition("==")[0] for line in locked if re.search(pattern, line)]
    assert found == ["numpy", "pyarrow", "scipy"]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    lines = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()]
    allowed = [line[1:] for line in lines if line.startswith("!")]
    sources = [
        source
        for line in re.findall(r"^COPY (.+)$", TEXT, flags=re.MULTILINE)
        for source in [part for part in line.split() if not part.startswith("--")][:-1]
    ]
    assert len(sources) > 8
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source


def test_nothing_else_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert not any(name in line for line in lines for name in ("secrets", ".venv", "tests", ".git"))


def test_health_checks_of_images_and_compose_are_the_same() -> None:
    import yaml

    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for target, service in (("api", "api"), ("worker-cpu", "worker"), ("worker-gpu", "worker-gpu")):
        written = re.search(r"HEALTHCHECK [^\n]*\\\n\s+CMD (\[.+\])", stage(target))
        assert written is not None
        assert yaml.safe_load(written[1]) == compose[service]["healthcheck"]["test"][1:]


def test_the_interpreter_is_one_that_the_project_supports() -> None:
    assert re.search(r"^ARG PYTHON=3\.1[123]-slim", TEXT, flags=re.MULTILINE)
