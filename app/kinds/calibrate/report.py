"""The report of a calibrate job, kind `calibrate` of schema `hemostat.report/1`.

The common blocks describe the calibrated model on the test documents. `raw` has the uncalibrated model's blocks at the
same positions. Everything except `choose_kl` comes from the single reading of the test documents.
"""

from typing import Literal

from pydantic import Field

from app.contracts.deployment import IDENTITY, Version
from app.contracts.profile import DocumentSet, TestRecord
from app.contracts.report import (
    Blocks,
    Report,
    Severity,
)


class CalibrateReport(Blocks, Report):
    """What a calibrate job found."""

    kind: Literal["calibrate"] = "calibrate"
    severity: Severity = Field(description="of the calibrated model's KL on the test documents")
    raw: Blocks
    raw_severity: Severity
    calibrator: str = Field(description="the chosen calibrator")
    profile: Version = Field(description="the profile of this calibrator")
    served: Version = Field(default=IDENTITY, description="the profile if it passed, else identity")
    deployment: str | None = None
    test: TestRecord
    sets: tuple[DocumentSet, ...]
