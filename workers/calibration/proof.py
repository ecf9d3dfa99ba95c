"""The one reading of the test: what it says of every calibrator, and whether the chosen one may be served."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from app.contracts.profile import Cell, TestRecord
from app.kinds.calibrate.request import CalibrateRequest
from workers.calibration.effects import effects_of, parts_of
from workers.calibration.fits import Fitted
from workers.calibration.measure import Logits, measured
from workers.calibration.record import table_row
from workers.calibration.reductions import Reductions
from workers.calibration.rows import Rows
from workers.calibration.selection import own_mask, paired, why_not
from workers.calibrators.protocol import Calibrator
from workers.distributions.token_values import TokenValues
from workers.measuring.sealed import Opened


@dataclass(frozen=True)
class Choice:
    """What was fitted, what each of it does on the choose set and costs a token in µs, which one is chosen, and the
    hash of all that."""

    fitted: dict[str, Fitted]
    choose_kl: dict[str, float]
    cost: dict[str, float]
    chosen: str
    frozen: str

    def calibrators(self) -> dict[str, Calibrator]:
        """By name."""
        return {name: found.calibrator for name, found in self.fitted.items()}


@dataclass(frozen=True)
class Proof:
    """The record, and the values of every test row under the raw model and under the chosen calibrator."""

    test: TestRecord
    raw: TokenValues
    calibrated: TokenValues


def prove(
    choice: Choice,
    calibrators: Mapping[str, Calibrator],
    opened: Opened[Rows],
    logits: Logits,
    *,
    request: CalibrateRequest,
    fitted_domains: Collection[str],
    progress: Callable[[int, int], None],
    check_cancelled: Callable[[], None],
    reductions: Reductions,
) -> Proof:
    """Judges `calibrators`, those of the choice as they are served, on the test rows."""
    rows, seed = opened.content, request.seed
    columns, values = measured(
        rows,
        logits,
        calibrators,
        valued=("", choice.chosen),
        progress=progress,
        check_cancelled=check_cancelled,
        reductions=reductions,
    )
    raw, calibrated = values[""], values[choice.chosen]
    own = own_mask(rows.row_domains(), fitted_domains)
    parts = {name: parts_of(columns[""], columns[name], rows, own, seed=seed) for name in calibrators}
    decided = parts[choice.chosen]
    reasons = why_not(
        decided[""],
        {name.removeprefix("domain/"): part for name, part in decided.items() if name.startswith("domain/")},
        tolerance=request.tolerance,
        nonfinite=int(np.count_nonzero(raw.finite & ~calibrated.finite)),
    )
    everywhere = np.ones_like(own)
    whole = paired(columns[""], columns[choice.chosen], rows.positions, everywhere, seed=seed)
    test = TestRecord(
        frozen=opened.frozen,
        opened_at=opened.at,
        tolerance=request.tolerance,
        passed=not reasons,
        reasons=reasons,
        table=tuple(
            table_row(
                name,
                choice.fitted[name].calibrator,
                parts[name],
                chosen=name == choice.chosen,
                choose_kl=choice.choose_kl[name],
                microseconds=choice.cost[name],
            )
            for name in calibrators
        ),
        effects=effects_of(raw, calibrated, rows, seed=seed),
        kl_high=_upper(whole.cell(), calibrated=True),
        raw_kl_high=_upper(whole.cell(), calibrated=False),
    )
    return Proof(test, raw, calibrated)


def _upper(cell: Cell, *, calibrated: bool) -> float | None:
    found = cell.calibrated if calibrated else cell.raw
    return found.ci[1] if found.ci is not None else found.mean
