"""The report of a calibrate job, kind `calibrate` of schema `hemostat.report/1`.

The common blocks speak of the calibrated model on the test documents. `raw` holds those of the model as it is, at the
same positions. Everything here comes from the one reading of the test documents, but for `choose_kl`.
"""

from typing import Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.deployment import IDENTITY, Version
from app.contracts.profile import DocumentSet, TestRecord
from app.contracts.report import (
    SCHEMA,
    Count,
    Divergence,
    DomainReport,
    Entropy,
    Mean,
    NoiseFloor,
    Perplexity,
    Provenance,
    Severity,
    SeverityVerdict,
)


class Blocks(Contract):
    """The common blocks of one model against the reference."""

    divergence: Divergence
    top1_agreement: Mean
    perplexity: Perplexity
    entropy: Entropy
    domains: dict[str, DomainReport]
    nonfinite_positions: Count


class CalibrateReport(Blocks):
    """What a calibrate job found."""

    schema_: Literal["hemostat.report/1"] = Field(default=SCHEMA, alias="schema")
    kind: Literal["calibrate"] = "calibrate"
    job: str
    severity: Severity = Field(description="of the calibrated model's KL on the test documents")
    verdict: str = Field(description="one plain sentence")
    decision: SeverityVerdict
    tokens: Count
    documents: Count
    windows: Count
    noise_floor: NoiseFloor
    raw: Blocks
    raw_severity: Severity
    calibrator: str = Field(description="the one that was chosen")
    profile: Version = Field(description="the profile that was made of it")
    served: Version = Field(default=IDENTITY, description="the profile where it passed, else identity")
    deployment: str | None = None
    test: TestRecord
    sets: tuple[DocumentSet, ...]
    not_tested: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    request: dict[str, object] | None = Field(
        default=None, description="the job's request, to repeat it; the documents of an inline text are left out"
    )
    provenance: Provenance

    model_config = Contract.model_config | {"populate_by_name": True, "serialize_by_alias": True}
