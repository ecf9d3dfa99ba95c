"""Jobs of kind `calibrate`."""

from app.kinds.calibrate.metrics import METRICS
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
KIND = Kind(
    request=CalibrateRequest,
    report=CalibrateReport,
    question="Fit, choose and prove a correction of the candidate",
    example=EXAMPLE,
    handler="workers.calibration.job:calibrate",
    cost=f"{__name__}.plan:cost",
    view=f"{__name__}.view:blocks",
    answer=f"{__name__}.view:heading",
    class_of="once calibrated",
    phases={
        "fit": Phase("fitting the calibrators", share=True),
        "choose": Phase("choosing a calibrator"),
    },
    metrics=METRICS,
)
