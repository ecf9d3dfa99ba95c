"""Jobs of kind `calibrate`."""

from app.contracts.metric import COMPARISON, Metric
from app.kinds.calibrate.notices import CalibrateNotice
from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.request import CalibrateRequest
from app.kinds.kind import Kind, Phase

EXAMPLE = {
    "kind": "calibrate",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "tokens": 25000,
    "calibrators": ["temperature", "lowrank", "lowrank+confidence"],
    "deployment": "smollm2-135m-rtn4",
}
METRICS = (
    Metric(
        "calibrate_profiles",
        "counter",
        "Profiles that passed or failed their test.",
        ("outcome",),
        {"outcome": ("passed", "refused")},
    ),
    Metric(
        "calibrate_saved_ratio", "gauge", "Share of the raw KL that the last calibration saved on test.", COMPARISON
    ),
    Metric("calibrate_passed", "gauge", "1 if the last calibration passed its test, else 0.", COMPARISON),
)
KIND = Kind(
    request=CalibrateRequest,
    report=CalibrateReport,
    question="Fit, choose and prove a correction of the candidate",
    example=EXAMPLE,
    handler="workers.calibration.job:calibrate",
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
    view=f"{__name__}.view:blocks",
    answer=f"{__name__}.view:heading",
    class_of="once calibrated",
    phases={
        "blocks": Phase("fitting corrections after each block"),
        "refine": Phase("refining these corrections", unit="step"),
        "corrected": Phase("running the candidate with these corrections"),
        "fit": Phase("fitting the calibrators", share=True),
        "choose": Phase("choosing a calibrator"),
    },
    metrics=METRICS,
    notices=CalibrateNotice,
)
