"""What is kept: a report under its request, whole, and found again only for the same request."""

import pytest

from app.contracts.errors import HemostatError
from examples.paper.measure import Results
from tests.support.reports import as_json, compare_report
from workers.surgery.prune_wanda import Wanda
from workers.surgery.quantize_gptq import Gptq

REQUEST = {
    "kind": "compare",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
}


@pytest.fixture(scope="module")
def report():
    return as_json(compare_report())


def test_a_kept_report_is_found_with_what_it_took(tmp_path, report):
    Results(tmp_path / "paper").keep("four", REQUEST, report, 12.5)
    found = Results(tmp_path / "paper").find("four", REQUEST)
    assert found.report is not None
    assert found.report.perplexity.ratio.mean == report["perplexity"]["ratio"]["mean"]
    assert (found.seconds, found.why) == (12.5, "")
    assert [path.suffix for path in (tmp_path / "paper").iterdir()] == [".json"]


def test_a_default_that_is_written_out_is_the_same_request_and_another_value_is_not(tmp_path, report):
    results = Results(tmp_path)
    results.keep("four", REQUEST, report, 1.0)
    assert results.find("four", REQUEST | {"window": 512}).report is not None
    assert results.find("four", REQUEST | {"window": 256}).why == "it has not been run"


def test_a_step_that_gives_other_weights_than_before_is_measured_again(tmp_path, report, monkeypatch):
    """Of any recipe in the request; a step that no recipe has changes nothing."""
    results = Results(tmp_path)
    wanda = {"type": "prune.wanda", "sparsity": 0.5}
    swept = {"type": "quantize.gptq", "bits": {"sweep": [8, 4]}}
    recipes = {
        "one": REQUEST | {"candidate": {"model": "m", "recipe": [wanda]}},
        "swept": REQUEST | {"kind": "sweep", "candidate": {"model": "m", "recipe": [wanda, swept]}},
        "second": REQUEST
        | {"kind": "trajectory", "candidates": [{"model": "m", "recipe": [wanda]}], "text": {"source": "shipped"}},
        "without": REQUEST,
    }
    for name, asked in recipes.items():
        results.keep(name, asked, report, 1.0)
    monkeypatch.setattr(Gptq, "version", Gptq.version + 1)
    assert [name for name, asked in recipes.items() if results.find(name, asked).report is None] == ["swept"]
    monkeypatch.setattr(Wanda, "version", Wanda.version + 1)
    assert [name for name, asked in recipes.items() if results.find(name, asked).report is None] == [
        "one",
        "swept",
        "second",
    ]
    monkeypatch.setattr("examples.paper.versions.SURGERY_VERSION", 1_000)
    assert all(results.find(name, asked).report is None for name, asked in recipes.items())


def test_why_a_job_failed_is_told_until_it_succeeds(tmp_path, report):
    results = Results(tmp_path)
    results.failed("four", "the job ended with disk_full")
    assert results.find("four", REQUEST).why == "the job ended with disk_full"
    results.keep("four", REQUEST, report, 1.0)
    assert results.find("four", REQUEST).why == ""


def test_a_request_that_the_service_would_refuse_is_refused(tmp_path):
    results = Results(tmp_path)
    with pytest.raises(HemostatError):
        results.path("four", REQUEST | {"window": 1})
    assert results.find("four", REQUEST | {"window": 1}).why.startswith("its request is refused: ")
