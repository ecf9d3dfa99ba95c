"""The page, its CSV and its pictures."""

import csv
import io
import re

import pytest

from examples.paper.age import told as made_with
from examples.paper.claim import FOLDER, claims, jobs_of, request
from examples.paper.elsewhere import Ruling, otherwise, read
from examples.paper.elsewhere import table as rulings_table
from examples.paper.finding import Figure, Finding
from examples.paper.measure import Measured
from examples.paper.page import HEADER, SIGNS, Told, page, rule_of, table, versions_of, write
from examples.paper.rulings.charts import bars
from tests.support.paper_reports import compared
from workers.surgery.application import SURGERY_VERSION

CLAIMS = claims()
REQUESTS = {name: request(name) for name in jobs_of(CLAIMS)}
FIGURE = Figure("a|b", 1.25, (1.2, 1.3), "nats a token", "the unmodified model")
CONFIRMED = Finding("confirmed", "It is so.", (FIGURE,), (bars("shown", "Shown", [FIGURE]),))
MISSING = Finding("not measured", "wanda-sparsity: it has not been run.")


@pytest.fixture(scope="module")
def told():
    return (Told(CLAIMS[0], CONFIRMED), *(Told(claim, MISSING) for claim in CLAIMS[1:]))


@pytest.fixture(scope="module")
def jobs():
    found = {name: Measured(name, why="it has not been run") for name in REQUESTS}
    return found | {"half-4-of-8": Measured("half-4-of-8", compared(), 61.0)}


def test_every_claim_is_told_with_its_outcome_rule_and_limits(told, jobs):
    text = page(told, jobs, REQUESTS)
    assert f"## {len(CLAIMS)} claims: 1 confirmed, {len(CLAIMS) - 1} not measured" in text
    for one in told:
        assert f"| [{one.claim.title}](#{one.claim.id}) |" in text
        assert f'<a id="{one.claim.id}"></a>' in text
        for part in (one.claim.statement, one.claim.rule, one.claim.limits, one.claim.measured):
            assert part in text
    assert "✔ **Confirmed.** It is so." in text
    assert "– **Not measured.** wanda-sparsity: it has not been run." in text


def test_the_published_page_has_the_words_of_today():
    text = (FOLDER.parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
    for path in (FOLDER / "words").glob("*.md"):
        assert path.read_text(encoding="utf-8").rstrip("\n") in text, path.name
    for claim in CLAIMS:
        for part in (claim.title, claim.source, claim.statement, claim.measured, claim.rule, claim.limits):
            assert part in text, claim.id


def test_the_published_page_tells_every_known_ruling_of_the_same_rule_and_jobs_that_differs():
    """Of the device whose numbers it shows, against all that is kept beside it."""
    docs = FOLDER.parents[1] / "docs"
    text = (docs / "paper.md").read_text(encoding="utf-8")
    kept = read(docs / "paper" / "rulings.csv")
    here = {one.claim: one for one in kept if f" on {one.device}, " in text.splitlines()[-1]}
    assert set(here) == {claim.id for claim in CLAIMS}
    assert made_with(text) == {claim: one.versions for claim, one in here.items()}
    for claim in CLAIMS:
        now = here[claim.id]
        (row,) = (line for line in text.splitlines() if line.startswith(f"| [{claim.title}](#{claim.id}) |"))
        assert f"| {SIGNS[now.outcome]} **{now.outcome}** |" in row
        cell = "; ".join(
            f"{outcome} on {', '.join(devices)}" + (f" ({mark})" if mark else "")
            for (outcome, mark), devices in otherwise(kept, now).items()
        )
        assert row.rpartition("**")[2].strip(" |") == cell


def test_the_published_page_names_the_versions_of_every_claim_that_it_rules():
    """Which they are is no fault: `python -m examples.paper --age` tells whether the code has moved on since."""
    text = (FOLDER.parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
    assert set(made_with(text)) == ruled(text)


def ruled(text):
    """The claims with an outcome in a page's summary, other than that they are not measured."""
    found = dict(re.findall(r"^\| \[.+\]\(#([a-z0-9-]+)\) \| \S \*\*(.+?)\*\* \|", text, re.MULTILINE))
    assert set(found) == {claim.id for claim in CLAIMS}
    return {claim for claim, outcome in found.items() if outcome != "not measured"}


def test_numbers_stand_with_interval_unit_and_what_they_are_against(told, jobs):
    assert "| a\\|b | 1.250 | [1.200, 1.300] | nats a token | the unmodified model |" in page(told, jobs, REQUESTS)


def test_a_claim_that_is_measured_names_the_versions_that_made_its_models(told, jobs):
    found = jobs | {job: Measured(job, compared(), 61.0) for job in CLAIMS[0].jobs}
    text = page(told, found, REQUESTS)
    assert made_with(text) == {CLAIMS[0].id: versions_of(CLAIMS[0], REQUESTS)}
    assert ruled(text) == set(made_with(text))


def test_jobs_are_listed_with_what_they_took_or_why_not(told, jobs):
    text = page(told, jobs, REQUESTS)
    assert re.search(r"\[half-4-of-8\]\(\S+\) \| compare \| [\d,  ]+ \| \d+ \| 1 min 01 s \|", text), text[-2500:]
    assert "/rtn-bits.json) | sweep | not measured: it has not been run | | |" in text


def test_the_csv_has_a_row_a_number_and_one_for_a_claim_without(told):
    rows = list(csv.DictReader(io.StringIO(table(told))))
    assert tuple(rows[0]) == HEADER
    assert [float(rows[0][name]) for name in ("value", "low", "high")] == [1.25, 1.2, 1.3]
    assert [row["claim"] for row in rows] == [claim.id for claim in CLAIMS]
    assert rows[1]["outcome"] == "not measured"
    assert rows[1]["value"] == ""


def test_written_twice_it_is_the_same_and_stale_pictures_go(tmp_path, told, jobs):
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "gone-light.svg").write_text("<svg/>")
    write(tmp_path, told, jobs, REQUESTS)
    first = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(first) == {"paper.md", "paper.csv", "rulings.csv", "shown-light.svg", "shown-dark.svg"}
    write(tmp_path, told, jobs, REQUESTS)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first


def test_every_picture_that_the_page_names_is_written(tmp_path, told, jobs):
    write(tmp_path, told, jobs, REQUESTS)
    named = re.findall(r'(?:src|srcset)="([^"]+)"', (tmp_path / "paper.md").read_text())
    assert len(named) == 2
    assert all((tmp_path / name).is_file() for name in named)


def test_versions_of_a_claim_are_of_the_steps_of_all_its_jobs():
    told = {one.rpartition(" ")[0] for one in versions_of(CLAIMS[0], REQUESTS).split("; ")}
    calibrated = {"prune.wanda", "prune.layers", "prune.channels", "prune.heads", "lowrank.svdllm"}
    assert told == {"surgery"} | calibrated


def test_what_was_ruled_on_another_device_is_kept_and_told_where_it_is_something_else(tmp_path, jobs):
    claim = CLAIMS[0]
    measured = {job: Measured(job, compared(), 61.0) for job in claim.jobs}
    told, found = (Told(claim, CONFIRMED),), jobs | measured
    device = compared().provenance.device
    rule, steps = rule_of(claim, REQUESTS), versions_of(claim, REQUESTS)
    assert f"surgery {SURGERY_VERSION}" in steps
    earlier = steps.replace(f"surgery {SURGERY_VERSION}", "surgery 0")
    before = [
        Ruling("another cpu", claim.id, rule, steps, "refuted"),
        Ruling("a third cpu", claim.id, rule, steps, "confirmed"),
        Ruling("a fourth cpu", claim.id, "another rule", steps, "refuted"),
        Ruling("a fifth cpu", claim.id, rule, earlier, "refuted"),
        Ruling("a sixth cpu", claim.id, rule, earlier, "confirmed"),
        Ruling(device, claim.id, rule, steps, "refuted"),
    ]
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "rulings.csv").write_text(rulings_table(before))
    write(tmp_path, told, found, REQUESTS)
    others = "refuted on a fifth cpu (other version: surgery 0); refuted on another cpu"
    row = f"| [{claim.title}](#{claim.id}) | ✔ **confirmed** | {others} |"
    assert row in (tmp_path / "paper.md").read_text()
    kept = read(tmp_path / "paper" / "rulings.csv")
    assert {one.device: one.outcome for one in kept} == {one.device: one.outcome for one in before} | {
        device: "confirmed"
    }
