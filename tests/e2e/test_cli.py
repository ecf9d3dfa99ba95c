"""`hemostat` as a person or a pipeline runs it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.models.registry import Snapshot, load_registry
from app.settings import Settings
from app.up import Service
from tests.support.worker import wait_for

HEMOSTAT = (sys.executable, "-m", "app.cli.main")
ROOT = Path(__file__).resolve().parents[2]


def hemostat(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HEMOSTAT, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=ROOT, timeout=800
    )


def compare(service: Service, text: Path, *more: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Of the model `tiny` on this text."""
    words = ("compare", "-r", "tiny", "--text", str(text), "--window", "64", "--url", service.url)
    return hemostat(*words, *more, environment=environment)


def _processes_of(home: Path) -> list[str]:
    """Command lines of living processes that belong to this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEMOSTAT_HOME") == str(home) or str(home) in " ".join(process.cmdline()):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file of documents."""
    file = tmp_path / "text.jsonl"
    lines = [{"id": f"c{n}", "domain": "prose", "text": f"the quick fox {n} jumps over dog {n * n}"} for n in range(12)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.parametrize(("bits", "level", "status", "outcome"), [(8, "collapse", 0, "pass"), (2, "mild", 1, "fail")])
def test_the_exit_status_follows_the_rule(
    service: Service, environment: dict[str, str], text: Path, bits: int, level: str, status: int, outcome: str
) -> None:
    recipe = ("--recipe", f"quantize.rtn:bits={bits},group_size=64")
    done = compare(service, text, *recipe, "--fail-on", level, environment=environment)
    assert done.returncode == status, done.stderr
    assert outcome in done.stdout
    assert re.search(r"Report: \S+\.html", done.stdout)


def test_a_folder_is_compared_on_the_service_of_the_same_home(
    service: Service, settings: Settings, environment: dict[str, str], text: Path, tiny: Callable[..., Path]
) -> None:
    """No service is named: the command finds it by the home's port."""
    folder = tiny("llama", seed=8)
    here = environment | {"HEMOSTAT_PORT": service.url.rpartition(":")[2]}
    done = hemostat("compare", "tiny", str(folder), "--text", str(text), "--window", "64", "--json", environment=here)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["provenance"]["reference"]["model"], report["provenance"]["candidate"]["model"]) == (
        "tiny",
        folder.name,
    )
    assert report["divergence"]["kl"]["mean"] > 0.1
    assert load_registry(settings.models_file).resolve(folder.name).path == folder


def test_a_hub_id_of_the_local_cache_is_compared_with_a_folder(
    environment: dict[str, str], text: Path, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """On a service of the command's own, in a home that is new."""
    repository, commit = tmp_path / "hub" / "models--org--base", "0" * 39 + "1"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(tiny("llama"), repository / "snapshots" / commit)
    shutil.copytree(tiny("llama", seed=8), tmp_path / "other")
    here = environment | {"HEMOSTAT_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "hub")}
    here["HEMOSTAT_PORT"] = "1"
    options = ("--text", str(text), "--window", "64", "--json")
    done = hemostat("compare", "org/base", str(tmp_path / "other"), *options, environment=here)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["request"]["reference"]["model"] == "base"
    assert report["divergence"]["kl"]["mean"] > 0.1
    assert load_registry(tmp_path / "home" / "models.toml").resolve("base").target == Snapshot("org/base", commit)


def test_a_job_that_fails_is_four_and_what_is_refused_is_two_with_the_reason(
    service: Service, environment: dict[str, str], text: Path
) -> None:
    failed = compare(service, text, "-c", "tiny-nan", environment=environment)
    assert failed.returncode == 4
    assert "checkpoint_not_finite" in failed.stderr
    assert "what to do" in failed.stderr
    refused = hemostat("compare", "-r", "tinyy", "--self-check", "--url", service.url, environment=environment)
    assert refused.returncode == 2
    assert "unknown_model" in refused.stderr


def test_json_output_is_the_report_and_nothing_else(service: Service, environment: dict[str, str], text: Path) -> None:
    one_window = text.with_name("one.jsonl")
    one_window.write_text(text.read_text().partition("\n")[0])
    rule = ("--recipe", "quantize.rtn:bits=4,group_size=64", "--fail-on", "mild")
    done = compare(service, one_window, *rule, "--json", environment=environment)
    assert done.returncode == 3, done.stderr  # one window gives no interval
    report = json.loads(done.stdout)
    assert report["rule"] == {"fail_on": "mild", "outcome": "inconclusive"}
    assert report["schema"] == "hemostat.report/1"
    listed = json.loads(hemostat("jobs", "list", "--json", "--url", service.url, environment=environment).stdout)
    assert listed["data"][0]["id"] == report["job"]
    shown = hemostat("jobs", "show", report["job"], "--url", service.url, environment=environment)
    assert "succeeded" in shown.stdout
    page = text.with_name("report.html")
    saved = hemostat("report", report["job"], "--html", str(page), "--url", service.url, environment=environment)
    assert saved.returncode == 0
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_a_page_that_could_not_be_written_is_refused_before_anything_is_measured(
    service: Service, environment: dict[str, str], text: Path
) -> None:
    before = hemostat("jobs", "list", "--json", "--url", service.url, environment=environment).stdout
    for output in (text.parent, text / "below-a-file.html"):
        more = ("-c", "tiny-copy", "--fail-on", "mild", "--output", str(output))
        done = compare(service, text, *more, environment=environment)
        assert done.returncode == 2, done.stderr
        assert "cannot be written" in done.stderr
    assert hemostat("jobs", "list", "--json", "--url", service.url, environment=environment).stdout == before


def test_a_typo_is_told_without_starting_a_service(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[models.tiny]\npath = "nowhere"\n')
    own = environment | {"HEMOSTAT_HOME": str(tmp_path), "HEMOSTAT_PORT": "1"}
    done = hemostat("compare", "-r", "tinny", "--self-check", environment=own)
    assert done.returncode == 2
    assert "did you mean 'tiny'" in done.stderr
    assert not (tmp_path / "logs").exists()


def test_a_setting_that_cannot_be_used_is_named(environment: dict[str, str]) -> None:
    done = hemostat("doctor", environment=environment | {"HEMOSTAT_PORT": "abc"})
    assert done.returncode == 2
    assert "HEMOSTAT_PORT='abc'" in done.stderr


def test_doctor_tells_the_engine_and_ends_with_zero_here(environment: dict[str, str]) -> None:
    done = hemostat("doctor", "--json", environment=environment)
    assert done.returncode == 0, done.stdout
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["vLLM"]["ok"]
    assert findings["Redis"]["ok"]


def test_the_demo_goes_from_nothing_to_a_verdict_and_leaves_no_process(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    home = tmp_path / "demo"
    done = hemostat("demo", environment=environment | {"HEMOSTAT_HOME": str(home)})
    assert done.returncode == 0, done.stderr
    assert "nats" in done.stdout
    match = re.search(r"Report: (\S+\.html)", done.stdout)
    assert match, done.stdout
    page = Path(match.group(1)).read_text()
    assert "smollm2-135m" in page
    wait_for(lambda: _processes_of(home) == [], what="end of all that was killed")
    # What was found: 4 bits, round to nearest, cost this model about a third of a nat a token.
    kept = next((home / "jobs").glob("diag_*/attempt-1/report.json"))
    report = json.loads(kept.read_text())
    low, high = report["divergence"]["kl"]["ci"]
    assert low < report["divergence"]["kl"]["mean"] < high
    assert 0.2 < report["divergence"]["kl"]["mean"] < 0.5
    assert report["documents"] >= 60
    assert Settings(home=home).models_file.is_file()
