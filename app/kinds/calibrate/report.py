"""The report of a calibrate job, kind `calibrate` of schema `hemostat.report/1`.

The common blocks speak of the calibrated model on the test documents. `raw` holds those of the model as it is, at the
same positions. Everything here comes from the one reading of the test documents, but for `choose_kl`.
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
    calibrator: str = Field(description="the one that was chosen")
    profile: Version = Field(description="the profile that was made of it")
    served: Version = Field(default=IDENTITY, description="the profile where it passed, else identity")
    deployment: str | None = None
    test: TestRecord
    sets: tuple[DocumentSet, ...]
