"""An overlap that a request allows is told by the report of every kind, with a real engine on a tiny model."""

from typing import Any

import pytest

from tests.integration.workers.diagnosis.test_scored_and_looked_at import KINDS, SCORED, run
from tests.support.tiny_jobs import Jobs, document, inline

# What makes each kind quick, and has a scored document among those that the candidate's step looks at.
QUICK: dict[str, dict[str, Any]] = {
    "compare": KINDS["compare"],
    "sweep": KINDS["sweep"],
    "surface": KINDS["surface"],
    "attribute": KINDS["attribute"] | {"levels": ["layer"], "internals": False, "tokens": 256, "budget": 4},
    "trajectory": KINDS["trajectory"],
    "calibrate": KINDS["calibrate"] | {"calibrators": ["temperature"]},
    "mitigate": {
        "text": inline(SCORED),
        "calibration": inline([document(number, domain="c") for number in range(300, 304)]),
        "treatments": ["norm.tweak"],
        "trials": 2,
        "calibration_windows": 2,
        "calibration_window": 32,
    },
}


@pytest.mark.parametrize("kind", QUICK)
def test_an_overlap_that_is_allowed_is_told(kind: str, jobs: Jobs) -> None:
    report = run(kind, jobs, allow_overlap=True, **QUICK[kind])
    assert [one for one in report.warnings if one.code == "looked_at"], report.warnings
