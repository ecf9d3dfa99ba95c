"""Requests to be checked and estimated, of the models that `tests/unit/app/models/conftest.py` registers."""

from typing import Any

from app.kinds.calibrate.request import CalibrateRequest
from app.kinds.compare.request import CompareRequest

DOCUMENT = {"id": "d1", "text": "Two tokens and more."}
RTN = {"type": "quantize.rtn", "bits": 4}


def request(
    *steps: dict[str, Any],
    reference: str = "llama",
    candidate: str = "llama",
    documents: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> CompareRequest:
    return CompareRequest.model_validate(
        {
            "kind": "compare",
            "reference": {"model": reference},
            "self_check": True,
            "candidate": {"model": candidate, "recipe": list(steps)},
            "text": {"source": "inline", "documents": documents or [DOCUMENT]},
            "window": 128,
        }
        | fields
    )


def calibration(**changes: object) -> CalibrateRequest:
    return CalibrateRequest.model_validate(
        {
            "kind": "calibrate",
            "reference": {"model": "llama"},
            "self_check": True,
            "candidate": {"model": "llama"},
            "window": 64,
        }
        | changes
    )
