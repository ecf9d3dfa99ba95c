"""Jobs of kind `sweep`."""

from app.contracts.metric import COMPARISON, Metric
from app.kinds.kind import Kind
from app.kinds.sweep.notices import SweepNotice
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
METRICS = (
    Metric(
        "sweep_points",
        "counter",
        "Settings of sweeps that were measured or refused.",
        ("outcome",),
        {"outcome": ("measured", "refused")},
    ),
    Metric("sweep_threshold_ratio", "gauge", "Share removed at the knee of the last sweep's perplexity.", COMPARISON),
    Metric("sweep_threshold_low_ratio", "gauge", "Lower 95 % limit of that share.", COMPARISON),
    Metric("sweep_threshold_high_ratio", "gauge", "Upper 95 % limit of that share.", COMPARISON),
    Metric("sweep_mild_ratio", "gauge", "Share removed at the strongest setting whose damage stayed mild.", COMPARISON),
)
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
    notices=SweepNotice,
)
