"""Jobs of kind `sweep`."""

from app.kinds.kind import Kind
from app.kinds.sweep.metrics import METRICS
from app.kinds.sweep.report import SweepReport
from app.kinds.sweep.request import SweepRequest

EXAMPLE = {
    "kind": "sweep",
    "reference": {"model": "smollm2-135m"},
    "candidate": {
        "model": "smollm2-135m",
        "recipe": [{"type": "prune.wanda", "sparsity": {"sweep": {"from": 0.1, "to": 0.8, "points": 29}}}],
    },
    "budget": 12,
}
KIND = Kind(
    request=SweepRequest,
    report=SweepReport,
    question="How far may one knob be turned?",
    example=EXAMPLE,
    handler="workers.diagnosis.sweep.job:sweep",
    helper="workers.diagnosis.sweep.job:help_sweep",
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
    view=f"{__name__}.view:blocks",
    answer=f"{__name__}.words:heading",
    class_of="at the strongest setting",
    knobs=1,
    more_knobs="for two knobs at once send it as kind surface (`hemostat surface`)",
    metrics=METRICS,
)
