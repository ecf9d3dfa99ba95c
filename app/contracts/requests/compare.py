"""The request of a `compare` job."""

from typing import Literal

from pydantic import Field

from app.contracts.requests.base import JobRequest, Thresholds


class CompareRequest(JobRequest):
    """Compare the next-token distributions of two models over one text."""

    kind: Literal["compare"]
    thresholds: Thresholds = Thresholds()
    precision: Literal["fast", "float32"] = Field(
        default="fast", description="Arithmetic of the divergence: bf16 products in difference form, or float32."
    )
    store_text: bool | None = Field(
        default=None,
        description="Keep the text around the worst tokens in the report; null: no for hub and file sources.",
    )


class CompareSubmission(CompareRequest):
    """The body of a submission. `dry_run` validates and estimates, and runs nothing."""

    dry_run: bool = False
