"""The pages, their results and their pictures."""

import pytest

from examples.paper.__main__ import _written
from examples.paper.another import Subject
from examples.paper.claim import FOLDER, claims, jobs_of, request
from examples.paper.elsewhere import Ruling, read
from examples.paper.elsewhere import table as rulings_table
from examples.paper.finding import Figure, Finding
from examples.paper.measure import Measured
from examples.paper.page import collected, pages, results_in, rule_of, shown, versions_of, with_earlier, write
from examples.paper.rulings.charts import bars
from tests.support.paper_reports import compared
from workers.surgery.application import SURGERY_VERSION

CLAIMS = claims()
REQUESTS = {name: request(name) for name in jobs_of(CLAIMS)}
DOCS = FOLDER.parents[1] / "docs"
FIGURE = Figure("a|b", 1.25, (1.2, 1.3), "nats per token", "the unmodified model")
CONFIRMED = Finding("confirmed", "It is so.", (FIGURE,), (bars("shown", "Shown", [FIGURE]),))
MISSING = Finding("not measured", "wanda-sparsity: it has not been run.")
FINDINGS = [CONFIRMED, *(MISSING for _ in CLAIMS[1:])]
FIRST = CLAIMS[0]


@pytest.fixture(scope="module")
def jobs():
    found = {name: Measured(name, why="it has not been run") for name in REQUESTS}
    return found | {job: Measured(job, compared(), 61.0) for job in FIRST.jobs}


@pytest.fixture(scope="module")
def results(jobs):
    return collected(CLAIMS, FINDINGS, jobs, REQUESTS)


def test_the_published_pages_are_those_of_the_published_results():
    """No number of theirs is typed: `make paper PAPER_ARGS=--write-only` writes them from results.json."""
    kept = read(DOCS / "paper" / "rulings.csv")
    made = pages(CLAIMS, results_in(DOCS), REQUESTS, kept)
    assert {name: (DOCS / name).read_text(encoding="utf-8") for name in made} == made
    assert {path.name for path in (DOCS / "paper").glob("*.md")} == {f"{claim.id}.md" for claim in CLAIMS}


def test_the_published_rulings_are_of_the_rules_and_jobs_of_today():
    """Each claim of the page has its ruling beside those of other devices, by the same rule on the same jobs."""
    kept = read(DOCS / "paper" / "rulings.csv")
    for claim in CLAIMS:
        told = results_in(DOCS).claims[claim.id]
        assert told.ruling in kept
        assert (told.ruling.rule, told.ruling.outcome) == (rule_of(claim, REQUESTS), told.finding.outcome)


def test_the_words_of_a_rule_decide_nothing_and_a_change_of_it_does():
    spoken = FIRST.model_copy(update={"rule": "Confirmed: another wording of the rule."})
    changed = FIRST.model_copy(update={"changes": (*FIRST.changes, "The first rule confirmed the claim.")})
    assert rule_of(spoken, REQUESTS) == rule_of(FIRST, REQUESTS) != rule_of(changed, REQUESTS)


def test_pages_of_kept_results_are_those_of_the_measurement_and_stale_files_go(tmp_path, results, monkeypatch):
    below = tmp_path / "paper"
    below.mkdir()
    (below / "gone-light.svg").write_text("<svg/>")
    (below / "gone.md").write_text("# Gone\n")
    write(tmp_path, CLAIMS, results, REQUESTS)
    first = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    expected = {"paper.md", "results.json", "rulings.csv", "shown-light.svg", "shown-dark.svg"}
    assert set(first) == expected | {f"{claim.id}.md" for claim in CLAIMS}
    _written(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first


def test_a_current_ruling_stays_if_its_jobs_are_not_measured_again_and_an_old_one_goes(jobs, results):
    nothing = {name: Measured(name, why="it has not been run") for name in REQUESTS}
    again = collected(CLAIMS, [MISSING for _ in CLAIMS], nothing, REQUESTS)
    merged = with_earlier(again, results, CLAIMS, REQUESTS)
    assert merged.claims == results.claims
    assert merged.jobs == results.jobs
    changed = (FIRST.model_copy(update={"changes": (*FIRST.changes, "Another rule before.")}), *CLAIMS[1:])
    assert with_earlier(again, results, changed, REQUESTS) == again


def test_a_threshold_of_larger_models_is_refuted_by_a_users_model_and_not_by_the_demo(results):
    cliff = next(claim for claim in CLAIMS if claim.id == "cliff")
    refuted = Finding("refuted", "It is not so.")
    assert shown(cliff, refuted, Subject(text={"source": "shipped"})) == "not transferable"
    assert shown(cliff, refuted, Subject("llama")) == "refuted"
    assert shown(FIRST, refuted, Subject()) == "refuted"
    assert shown(cliff, CONFIRMED, Subject()) == "confirmed"


def test_the_pages_of_a_users_model_say_nothing_of_the_demo_model(results):
    made = pages(CLAIMS, results, REQUESTS, (), Subject("llama"))
    assert made["paper.md"].startswith("# The paper's claims, tested on llama\n")
    assert not any("135 million" in text or "../examples" in text for text in made.values())


def test_another_outcome_on_another_device_is_kept_and_shown(tmp_path, results):
    device = compared().provenance.device
    rule, steps = rule_of(FIRST, REQUESTS), versions_of(FIRST, REQUESTS)
    assert f"surgery {SURGERY_VERSION}" in steps
    earlier = steps.replace(f"surgery {SURGERY_VERSION}", "surgery 0")
    before = [
        Ruling("another cpu", FIRST.id, rule, steps, "refuted"),
        Ruling("a third cpu", FIRST.id, rule, steps, "confirmed"),
        Ruling("a fourth cpu", FIRST.id, "another rule", steps, "refuted"),
        Ruling("a fifth cpu", FIRST.id, rule, earlier, "refuted"),
        Ruling("a sixth cpu", FIRST.id, rule, earlier, "confirmed"),
        Ruling(device, FIRST.id, rule, steps, "refuted"),
    ]
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "rulings.csv").write_text(rulings_table(before))
    write(tmp_path, CLAIMS, results, REQUESTS)
    others = "refuted on a fifth cpu (other version: surgery 0); refuted on another cpu"
    row = f"| [{FIRST.title}](paper/{FIRST.id}.md) | ✔ **confirmed** | {others} |"
    assert row in (tmp_path / "paper.md").read_text()
    kept = read(tmp_path / "paper" / "rulings.csv")
    assert {one.device: one.outcome for one in kept} == {one.device: one.outcome for one in before} | {
        device: "confirmed"
    }
