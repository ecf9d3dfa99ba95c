"""Rules on the abstract's mitigations, each against the plain method."""

from __future__ import annotations

from app.kinds.calibrate.report import CalibrateReport
from app.kinds.compare.report import CompareReport
from examples.paper.finding import Figure, Finding, NoNumberError, decided
from examples.paper.rulings.charts import bars
from examples.paper.rulings.paired import Method, compared, ordered
from examples.paper.rulings.reports import NATS, ORIGINAL, Reports


def gradient_pruning(reports: Reports) -> Finding:
    """Half zeros: gradient-aware against Wanda."""
    plain = ("half-wanda", "half zeros, Wanda")
    return _against(reports, ("gradient-half", "half zeros, gradient-aware"), plain, "gradient")


def dynamic_scaling(reports: Reports) -> Finding:
    """Four bits: dynamic scaling against round to nearest."""
    plain = ("four-bits-rtn", "four bits, round to nearest")
    return _against(reports, ("dynamic-four-bits", "four bits, dynamic scaling"), plain, "dynamic")


def decoding_calibration(reports: Reports) -> Finding:
    """Four bits: the chosen correction against none, on documents of the test; the difference is paired by token."""
    report = reports.of("four-bits-calibrated", CalibrateReport)
    chosen = next((row for row in report.test.table if row.chosen), None)
    if chosen is None:
        raise NoNumberError("no correction was chosen")
    raw = Figure.of("four bits, raw", chosen.own.raw, NATS, ORIGINAL)
    calibrated = Figure.of(f"four bits, calibrated ({chosen.calibrator})", chosen.own.calibrated, NATS, ORIGINAL)
    saved = Figure.of("saved by calibration", chosen.own.saved, NATS, raw.what)
    cells = chosen.domains.values()
    better = sum(cell.saved.ci is not None and cell.saved.ci[0] > 0 for cell in cells)
    worse = sum(cell.saved.ci is not None and cell.saved.ci[1] < 0 for cell in cells)
    sentence = (
        f"{chosen.calibrator} saves {saved} of {raw} nats per token ({raw.what}); {calibrated} remain. Significantly "
        f"better: {better} of {len(cells)} domains; significantly worse: {worse}."
    )
    figures = [raw, calibrated, saved]
    if report.test.effects is not None:
        # What lowers KL by flattening alone would not raise this.
        what, change = "change of top-1 agreement", report.test.effects.top1_agreement.change
        figures.append(Figure.of(what, change, "share of positions", raw.what))
    return Finding(
        decided(confirmed=saved.low > 0, refuted=saved.high < 0),
        sentence,
        tuple(figures),
        (bars("calibration", "KL to the original", [calibrated, raw]),),
    )


def _kl(reports: Reports, method: Method) -> Figure:
    job, what = method
    return Figure.of(what, reports.of(job, CompareReport).divergence.kl, NATS, ORIGINAL)


def _against(reports: Reports, treated: Method, plain: Method, name: str) -> Finding:
    both = [_kl(reports, treated), _kl(reports, plain)]
    comparison = compared(reports, treated, plain, "kl")
    holds, reversed_ = ordered([comparison])
    sentence = (
        f"KL {both[0]} nats per token ({treated[1]}) against {both[1]} ({plain[1]}); {comparison.nats} are saved."
    )
    chart = bars(name, "KL to the original", both)
    outcome = decided(confirmed=bool(holds), refuted=bool(reversed_))
    return Finding(outcome, sentence, (*both, comparison.nats), (chart,))
