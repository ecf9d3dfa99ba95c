"""A kind of job needs its own folder and one line: here a kind that only tests know has what every kind has."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.report import Report
from app.jobs.parsing import parse_submission
from app.kinds.estimates import estimate
from app.kinds.registry import KINDS
from app.main import create_app
from app.models.registry import load_registry
from app.reports.render import as_markdown, render
from app.settings import Settings
from app.telemetry.metrics import Telemetry
from app.web.listing import outcome
from app.web.progress import told
from tests.support.html import tree
from tests.support.reports import compare_report
from tests.support.tail_kind import KIND, TailReport
from tests.support.terminal import printed
from workers.telemetry import Telemetry as WorkerTelemetry


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(KINDS, "tail", KIND)


@pytest.fixture
def registry(tmp_path, tiny):
    file = tmp_path / "models.toml"
    file.write_text("".join(f"[models.{alias}]\npath = {json.dumps(str(tiny()))}\n" for alias in "mn"))
    return load_registry(file)


def report():
    names = {field.alias or name for name, field in Report.model_fields.items()}
    shared = {name: value for name, value in compare_report().items() if name in names}
    return shared | {"kind": "tail", "share": 0.125, "request": KIND.example}


def test_the_api_describes_and_takes_it(tmp_path):
    schemas = create_app(Settings(home=tmp_path)).openapi()["components"]["schemas"]
    assert schemas["TailSubmission"]["properties"]["above"]["exclusiveMinimum"] == 0
    assert "share" in schemas["TailReport"]["properties"]
    assert parse_submission(json.dumps(KIND.example | {"dry_run": True}).encode()).kind == "tail"


def test_a_dry_run_estimates_it(registry, tmp_path):
    changes = {"self_check": True, "candidate": {"model": "m"}, "window": 64}
    found = estimate(KIND.request.model_validate({**KIND.example, **changes}), registry, Settings(home=tmp_path))
    assert found.kind == "tail"
    assert found.tokens > 0 < found.seconds


def too_high(request, _):
    if request.above > 10:
        raise HemostatError(ErrorCode.INVALID_REQUEST, "above is more than 10", pointer="/above")


def doubled(_, cost):
    cost.tokens *= 2


def test_its_own_check_and_cost_reach_the_estimate(registry, tmp_path, monkeypatch):
    asked = {**KIND.example, "self_check": True, "candidate": {"model": "m"}, "window": 64}
    before = estimate(KIND.request.model_validate(asked), registry, Settings(home=tmp_path))
    own = replace(KIND, check=f"{__name__}:too_high", cost=f"{__name__}:doubled")
    monkeypatch.setitem(KINDS, "tail", own)
    after = estimate(KIND.request.model_validate(asked), registry, Settings(home=tmp_path))
    assert after.tokens == 2 * before.tokens
    with pytest.raises(HemostatError) as refused:
        estimate(KIND.request.model_validate(asked | {"above": 11}), registry, Settings(home=tmp_path))
    assert refused.value.pointer == "/above"


def test_metrics_name_the_comparison_by_aliases_and_the_recipe_by_twelve_characters():
    made = TailReport.model_validate(report())
    assert made.labels() == {"reference": "smollm2-135m", "model": "smollm2-135m", "recipe": "c0dec0dec0de"}
    plain = made.provenance.candidate.model_copy(update={"recipe_fingerprint": None})
    assert made.labels(plain)["recipe"] == "none"


def test_its_phase_and_its_line_in_a_list_have_words():
    assert (
        told("tail", {"phase": "tail", "done": 1, "total": 4}) == "counting the tail: 1 of 4 tokens, 25 % of this phase"
    )
    assert outcome({"kind": "tail", "severity": "mild", "answer": "12.5 % above"}) == "12.5 % above; mild"


def test_its_report_is_a_page_a_terminal_output_and_markdown_with_the_line_that_repeats_it():
    page = tree(render(report()))
    assert page.one("title").text.strip().startswith("12.5 % above: ")
    for shown in (page.text, printed(report(), details=True)):
        assert "hemostat tail m n --above 2" in " ".join(shown.replace("\\", " ").split())
    assert "12.5 % above the limit." in printed(report())
    assert "12.5 % above the limit." in as_markdown(report())


def test_submissions_are_counted_by_it():
    assert b'hemostat_jobs_submitted_total{kind="tail",' in Telemetry().render()


def test_a_worker_exports_its_metric_by_the_labels_of_its_report():
    worker, labels = WorkerTelemetry(), TailReport.model_validate(report()).labels()
    worker.observe("tail_ratio", 0.125, **labels)
    assert worker.value("tail_ratio", **labels) == 0.125


def test_the_command_line_has_its_command():
    code = (
        "from app.kinds.registry import KINDS; from tests.support.tail_kind import KIND; KINDS['tail'] = KIND; "
        "from app.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "tail", "--help"], capture_output=True, text=True, check=True)
    assert "Find the share of tokens" in done.stdout
    assert "--above" in done.stdout
