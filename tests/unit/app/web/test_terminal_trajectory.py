"""A trajectory report in a terminal: on a wide one no number of a cell stands without its interval."""

import io

import pytest
from rich.console import Console

from app.kinds.trajectory.report import TrajectoryReport
from app.web import format as fmt
from app.web.report import render
from app.web.terminal_trajectory import render_trajectory
from tests.support.trajectory_reports import trajectory_variants

VARIANTS = trajectory_variants()


def printed(report: TrajectoryReport, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True, no_color=True)
    render_trajectory(report, console, lambda text: text)
    return console.export_text()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_wide_terminal_shows_every_interval(name: str) -> None:
    report = TrajectoryReport.model_validate(VARIANTS[name])
    told = printed(report, 120)
    for cell in report.cells:
        grown = cell.amplification
        for mean in (grown.kl_reference_text, grown.kl_candidate_text, cell.first_divergence.shared_prefix):
            assert mean is not None
            assert str(fmt.estimate(mean.mean, mean.ci)) in told
        assert (fmt.estimate(cell.change.length.mean, cell.change.length.ci).interval or fmt.NONE) in told
    for one in report.distances:
        assert str(fmt.estimate(one.infinite.mean, one.infinite.ci, percent=True)) in told


def test_kinds_of_token_of_the_first_decoder_are_printed() -> None:
    report = TrajectoryReport.model_validate(VARIANTS["one"])
    of = report.cells[0].by_class
    wide, narrow = printed(report, 120), " ".join(printed(report, 80).split())
    for one in of.first_divergence.classes:
        assert str(fmt.estimate(one.share.mean, one.share.ci, percent=True)) in wide
    for kl in (*of.reference_text, *of.candidate_text):
        assert str(fmt.estimate(kl.kl.mean, kl.kl.ci)) in wide
        assert fmt.estimate(kl.kl.mean, None).value in narrow
    assert "Program code" in narrow


@pytest.mark.parametrize("name", VARIANTS)
def test_no_line_is_longer_than_a_narrow_terminal(name: str) -> None:
    told = printed(TrajectoryReport.model_validate(VARIANTS[name]), 80)
    assert max(map(len, told.splitlines())) <= 80


def test_a_narrow_terminal_claims_intervals_of_the_factor_alone() -> None:
    told = " ".join(printed(TrajectoryReport.model_validate(VARIANTS["one"]), 80).split())
    assert "KL in nats a token; 95 % intervals of the factor" in told


def test_texts_that_the_models_wrote_are_not_called_windows() -> None:
    report = TrajectoryReport.model_validate(VARIANTS["one"])
    told = " ".join(printed(report, 200).split())
    longest = fmt.count(report.provenance.protocol.window)
    assert f"texts of up to {longest} tokens, the prompt included" in told
    assert "windows of" not in told
    assert "Window, stride" not in render(VARIANTS["one"])
