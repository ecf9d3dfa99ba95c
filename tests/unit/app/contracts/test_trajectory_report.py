"""The drawn trajectory reports of the tests have numbers that fit together."""

import pytest

from app.kinds.trajectory.report import TrajectoryReport
from tests.support.trajectory_reports import trajectory_variants

VARIANTS = trajectory_variants()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_numbers_of_a_report_fit_together(name: str) -> None:
    """What the drawn reports must keep, so that what draws them is not tested on numbers that cannot be."""
    report = TrajectoryReport.model_validate(VARIANTS[name])
    first = [cell for cell in report.cells if cell.decoder == report.decoders[0].name]
    assert report.candidates[0].blocks.divergence == report.divergence
    for run, cell in zip(report.candidates, first, strict=True):
        assert cell.kl_reference_text.mean == pytest.approx(run.blocks.divergence.kl.mean)
        assert cell.kl_reference_text.mean == pytest.approx(run.excess_kl.mean)
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
        assert (own == other == 0) == (grown.kl.value is None)
        length, their_length = cell.text.length.mean, theirs.length.mean
        assert length is not None
        assert their_length is not None
        written += cell.prompts * (length + (their_length if cell.candidate == 0 else 0))
    assert report.generated_tokens == pytest.approx(written)
    assert report.prompts == report.documents == report.cells[0].prompts
    for sample in report.samples:
        assert bool(sample.reference or sample.candidate_text) == (sample.first_divergence is not None)
