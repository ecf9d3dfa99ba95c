"""A trajectory report that was valid stays valid, and a reader of the first schema can read today's reports."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.contracts.trajectory_report import TrajectoryReport
from app.web.schema import FILES, breaking_changes, main, report_schema, text_of
from tests.support.trajectory_reports import trajectory_variants

GOLDEN = Path(__file__).parent / "golden"
OLD_REPORT = json.loads((GOLDEN / "trajectory-1.json").read_text(encoding="utf-8"))
FIRST_SCHEMA = json.loads((GOLDEN / "trajectory-1.schema.json").read_text(encoding="utf-8"))
VARIANTS = trajectory_variants()
TODAY, FIRST = Draft202012Validator(report_schema("trajectory")), Draft202012Validator(FIRST_SCHEMA)


def errors(validator: Draft202012Validator, report: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(report)]


def test_the_oldest_report_is_still_valid() -> None:
    assert errors(TODAY, OLD_REPORT) == []
    read = TrajectoryReport.model_validate(OLD_REPORT)
    assert json.loads(read.model_dump_json(exclude_unset=True)) == OLD_REPORT


def test_nothing_was_removed_renamed_or_narrowed_since_the_first_schema() -> None:
    assert breaking_changes(FIRST_SCHEMA, report_schema("trajectory")) == []


@pytest.mark.parametrize("name", VARIANTS)
def test_reports_of_today_are_valid_by_both_schemas(name: str) -> None:
    assert errors(TODAY, VARIANTS[name]) == []
    assert errors(FIRST, VARIANTS[name]) == []


def test_the_published_schema_is_what_the_contract_gives() -> None:
    assert FILES["trajectory"].read_text(encoding="utf-8") == text_of(report_schema("trajectory"))
    assert main(["--check", "--kind", "trajectory"]) == 0


def test_the_kinds_are_told_apart() -> None:
    assert any("kind" in error for error in errors(TODAY, OLD_REPORT | {"kind": "compare"}))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_numbers_of_a_report_fit_together(name: str) -> None:
    """What the drawn reports must keep, so that what draws them is not tested on numbers that cannot be."""
    report = TrajectoryReport.model_validate(VARIANTS[name])
    first = [cell for cell in report.cells if cell.decoder == report.decoders[0].name]
    assert report.candidates[0].blocks is not None
    assert report.candidates[0].blocks.divergence == report.divergence
    for run, cell in zip(report.candidates, first, strict=True):
        assert run.blocks is not None
        assert cell.kl_reference_text.mean == pytest.approx(run.blocks.divergence.kl.mean)
        assert cell.kl_reference_text.mean == pytest.approx(run.excess_kl.mean)
    kl = first[0].amplification.kl
    assert report.verdict.startswith("No damage" if kl.value is None else ("Decoding", "Whether decoding"))
    assert kl.value is None or f"{kl.value:.3g} times" in report.verdict
    classes = " or ".join(report.decision.classes)
    assert f"By single steps the damage is {classes}." in report.verdict or kl.value is None
    written = 0.0
    for cell in report.cells:
        parted, shares = cell.first_divergence, [point.share for point in cell.survival]
        assert parted.diverged.mean == pytest.approx(1 - shares[-1], abs=1 / cell.prompts)
        assert parted.shared_prefix.mean == pytest.approx(sum(shares[1:]), abs=shares[-1] * report.most_tokens + 1e-9)
        assert parted.median == next((point.tokens for point in cell.survival if point.share <= 0.5), None)
        assert sorted(shares, reverse=True) == shares
        theirs = next(one.text for one in report.reference_texts if one.decoder == cell.decoder)
        for what in ("length", "distinct"):
            change = getattr(cell.text, what).mean - getattr(theirs, what).mean
            assert getattr(cell.change, what).mean == pytest.approx(change)
        grown = cell.amplification
        if grown.kl.value is not None:
            assert grown.kl_candidate_text is not None
            assert grown.kl_reference_text is not None
            assert grown.kl_reference_text.mean is not None
            assert grown.kl_candidate_text.mean == pytest.approx(grown.kl.value * grown.kl_reference_text.mean)
        if cell.amplification.tokens.value is not None:
            free, one_step = cell.amplification.free.mean, cell.amplification.one_step.mean
            assert free is not None
            assert one_step is not None
            factor = free / one_step
            assert cell.amplification.tokens.value == pytest.approx(factor)
        own, other = (
            sum(getattr(band, field).mean for band in cell.along[:1])
            for field in ("kl_candidate_text", "kl_reference_text")
        )
        assert (own == other == 0) == (kl.value is None)
        length, their_length = cell.text.length.mean, theirs.length.mean
        assert length is not None
        assert their_length is not None
        written += cell.prompts * (length + (their_length if cell.candidate == 0 else 0))
    assert report.generated_tokens == pytest.approx(written)
    assert report.prompts == report.documents == report.cells[0].prompts
    for sample in report.samples:
        assert bool(sample.reference or sample.candidate_text) == (sample.first_divergence is not None)
