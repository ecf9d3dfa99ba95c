"""The report of a calibrate job, from what the one reading of the test said."""

from __future__ import annotations

from dataclasses import dataclass

from app.contracts.deployment import IDENTITY
from app.contracts.notice import Notice
from app.contracts.profile import Profile, TableRow, TestRecord
from app.contracts.report import Blocks
from app.kinds.calibrate.notices import CalibrateNotice
from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.request import CalibrateRequest
from workers.calibration.sets import Sets
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.distributions.token_values import Positions, TokenValues
from workers.measuring.assemble import Conditions, envelope, of_making, provenance
from workers.measuring.floor import Floor
from workers.measuring.limitations import limits_of
from workers.measuring.sides import Sides
from workers.measuring.summary import Summary, summarize
from workers.measuring.verdict import decide
from workers.process.handler import JobContext


@dataclass(frozen=True)
class Tested:
    """All that a calibrate job found out. Values stand at `positions` of the test corpus."""

    request: CalibrateRequest
    sides: Sides
    sets: Sets
    positions: Positions
    raw: TokenValues
    calibrated: TokenValues
    floor: Floor
    test: TestRecord
    profile: Profile
    conditions: Conditions


def build_report(tested: Tested, context: JobContext) -> CalibrateReport:
    """Statistics of both models, the verdict, provenance."""
    request, test = tested.request, tested.test
    raw, calibrated = (_summary(tested, values, context) for values in (tested.raw, tested.calibrated))
    decisions = [
        decide(found.excess, request.thresholds, nonfinite=found.nonfinite_positions, floor=found.floor)
        for found in (raw, calibrated)
    ]
    corpus = tested.sets.test
    source = provenance(request, tested.conditions, sides=tested.sides, corpus=corpus)
    return CalibrateReport(
        verdict=sentence(chosen_row(test), test, deployment=request.deployment),
        raw=Blocks(**raw.common()),
        raw_severity=decisions[0].severity,
        calibrator=chosen_row(test).calibrator,
        profile=tested.profile.version,
        served=tested.profile.version if test.passed else IDENTITY,
        deployment=request.deployment,
        test=test,
        sets=tested.sets.records(),
        not_tested=limits_of(tested.sets.test, tested.positions, request.test_text or request.text),
        warnings=(*tested.sets.warnings, *_warnings(tested, raw, calibrated)),
        **calibrated.of_report(),
        **envelope(request, context, decisions[1], tested.floor, source),
    )


def chosen_row(test: TestRecord) -> TableRow:
    """The row of the table that was chosen."""
    return next(row for row in test.table if row.chosen)


def sentence(row: TableRow, test: TestRecord, *, deployment: str | None) -> str:
    """The verdict in plain words, with the reason where identity is served."""
    own = row.own
    if own.saved.mean is None or own.raw.mean is None or own.calibrated.mean is None:
        return f"Not served: {row.calibrator} has no finite test position. Identity is served."
    ci = own.saved.ci
    interval = "" if ci is None else f", 95 % interval {ci[0]:.4f} to {ci[1]:.4f}"
    saved = f"{100 * own.saved_share:.0f} %" if own.saved_share is not None else "nothing"
    effect = (
        f"{row.calibrator} takes {saved} of the KL away on test documents: {own.raw.mean:.4f} becomes "
        f"{own.calibrated.mean:.4f} nats per token (saved {own.saved.mean:.4f}{interval})"
    )
    if test.passed:
        where = f" and may be served to {deployment}" if deployment else " and may be served"
        return f"Proven: {effect}, no domain is worse than tolerated{where}."
    more = f", and {len(test.reasons) - 1} more" if len(test.reasons) > 1 else ""
    return f"Not served: {effect}, but {test.reasons[0]}{more}. Identity is served."


def _summary(tested: Tested, values: TokenValues, context: JobContext) -> Summary:
    return summarize(
        values,
        tested.positions,
        [document.domain for document in tested.sets.test.documents],
        window=tested.request.window,
        floor_kl=tested.floor.kl,
        seed=tested.request.seed,
        check_cancelled=context.check_cancelled,
    )


def _warnings(tested: Tested, raw: Summary, calibrated: Summary) -> list[Notice]:
    found = of_making(tested.sides)
    documents: dict[str, int] = {}
    for document in tested.sets.test.documents:
        documents[document.domain] = documents.get(document.domain, 0) + 1
    few = sorted(name for name, count in documents.items() if count < FEWEST_CLUSTERS)
    if few:
        found.append(CalibrateNotice.FEW_TEST_DOCUMENTS(fewest=FEWEST_CLUSTERS, domains=tuple(few)))
    strange = sorted(set(documents) - tested.sets.fitted_domains())
    if len(strange) == len(documents):
        found.append(CalibrateNotice.NO_FITTED_DOMAIN())
    if raw.nonfinite_positions or calibrated.nonfinite_positions:
        positions = {"raw": raw.nonfinite_positions, "calibrated": calibrated.nonfinite_positions}
        found.append(CalibrateNotice.NONFINITE_POSITIONS(**positions))
    return found
