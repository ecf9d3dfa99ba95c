"""Alert rules: every one waits, says how bad it is, leads to a runbook, and is shown to fire and to be quiet."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.tools import tool

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
RULES: list[Json] = [
    rule
    for file in sorted((FOLDER / "rules").glob("*.yml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
CASES: list[Json] = [
    case
    for file in sorted((FOLDER / "tests").glob("*.yml"))
    for test in yaml.safe_load(file.read_text())["tests"]
    for case in test["alert_rule_test"]
]


def named(rule: Json) -> str:
    return str(rule["alert"])


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], capture_output=True, text=True, check=False, cwd=FOLDER / "tests"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_waits_and_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in RULES:
        assert re.fullmatch(r"[1-9]\d*[sm]", rule["for"]), named(rule)
        assert rule["labels"]["severity"] in {"warning", "critical"}, named(rule)
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, named(rule)


def test_its_runbook_has_a_section_with_summary_impact_diagnosis_and_steps() -> None:
    for rule in RULES:
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor == named(rule).lower(), "the anchor of the heading"
        sections = re.split(r"^## ", (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
        (found,) = [section for section in sections if section.splitlines()[0].strip() == named(rule)]
        for part in ("Summary", "Impact", "Diagnosis", "Steps"):
            assert f"**{part}.**" in found, named(rule)


def test_runbooks_have_no_section_without_an_alert() -> None:
    headings = {
        heading
        for file in (ROOT / "deploy" / "runbooks").glob("*.md")
        for heading in re.findall(r"^## (\w+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert headings == {named(rule) for rule in RULES}


def test_there_is_a_case_where_it_fires_and_one_where_it_is_quiet() -> None:
    cases = {(case["alertname"], bool(case["exp_alerts"])) for case in CASES}
    assert cases == {(named(rule), fires) for rule in RULES for fires in (True, False)}


def test_the_cases_hold() -> None:
    promtool("test", "rules", *(str(file) for file in sorted((FOLDER / "tests").glob("*.yml"))))


def test_rules_and_configuration_are_valid(tmp_path: Path) -> None:
    promtool("check", "rules", *(str(file) for file in sorted((FOLDER / "rules").glob("*.yml"))))
    key = tmp_path / "key"
    key.write_text("secret")
    text = (FOLDER / "prometheus.yml").read_text().replace("/run/secrets/scrape_key", str(key))
    (tmp_path / "prometheus.yml").write_text(text.replace("rules/*.yml", f"{FOLDER}/rules/*.yml"))
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_the_configuration_for_make_up_is_the_same_but_for_hosts_and_keys() -> None:
    promtool("check", "config", str(FOLDER / "local.yml"))
    compose = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    local = yaml.safe_load((FOLDER / "local.yml").read_text())
    for job in compose["scrape_configs"]:
        for part in (job, *job.get("http_sd_configs", ())):
            part.pop("authorization", None)
        for names in job.pop("dns_sd_configs", ()):
            job["static_configs"] = [{"targets": [f"{name}:{names['port']}" for name in names["names"]]}]
    text = yaml.safe_dump(compose)
    for host in ("api", "worker"):
        text = re.sub(rf"\b{host}:(?=\d)", "127.0.0.1:", text)
    assert yaml.safe_load(text) == local
