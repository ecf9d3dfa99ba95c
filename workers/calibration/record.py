"""What a calibrate job stores of a fitted calibrator: the row of the table, and the record of the profile."""

from __future__ import annotations

from collections.abc import Mapping

from app.contracts.profile import FitRecord, ProfileModel, ProfileRecord, TableRow, TestRecord
from app.kinds.calibrate.request import CalibrateRequest
from workers.calibration.fits import Fitted
from workers.calibration.profiles import tensor_bytes
from workers.calibration.selection import Paired
from workers.calibration.sets import Sets
from workers.calibrators.protocol import Calibrator
from workers.measuring.sides import Side, Sides


def table_row(
    name: str,
    calibrator: Calibrator,
    parts: Mapping[str, Paired],
    *,
    chosen: bool,
    choose_kl: float,
    microseconds: float,
) -> TableRow:
    """One calibrator on the test documents; `parts` as `effects.parts_of` names them."""
    return TableRow(
        calibrator=name,
        chosen=chosen,
        own=parts[""].cell(),
        other=parts["other"].cell() if "other" in parts else None,
        domains={
            part.removeprefix("domain/"): found.cell() for part, found in parts.items() if part.startswith("domain/")
        },
        choose_kl=choose_kl,
        microseconds_per_token=microseconds,
        bytes=tensor_bytes(calibrator),
        parameters=dict(calibrator.describe()),
    )


def profile_record(
    request: CalibrateRequest, sides: Sides, sets: Sets, found: Fitted, test: TestRecord, *, engine: str, job: str
) -> ProfileRecord:
    """How the chosen calibrator came about, and what proves it."""
    head, manifest = sides.candidate.head, sides.modified.manifest
    fit = FitRecord(
        origin="job",
        reference=_model(sides.reference),
        candidate=_model(sides.candidate).model_copy(
            update={"recipe": manifest.recipe, "recipe_fingerprint": manifest.recipe_fingerprint}
        ),
        head=head.fingerprint,
        hidden_size=head.hidden_size,
        vocabulary=head.vocabulary,
        tokenizer_fingerprint=sides.tokenizer_fingerprint,
        engine=engine,
        dtype=sides.dtype,
        window=request.window,
        seed=request.seed,
        sets=sets.records(),
        settings=found.settings,
    )
    return ProfileRecord(fit=fit, test=test, job=job, deployment=request.deployment)


def _model(side: Side) -> ProfileModel:
    return ProfileModel(model=side.alias, weights_fingerprint=side.weights)
