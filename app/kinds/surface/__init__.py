"""Jobs of kind `surface`."""

from app.kinds.kind import Kind
from app.kinds.surface.metrics import METRICS
from app.kinds.surface.report import SurfaceReport
from app.kinds.surface.request import SurfaceRequest

EXAMPLE = {
    "kind": "surface",
    "reference": {"model": "smollm2-135m"},
    "candidate": {
        "model": "smollm2-135m",
        "recipe": [
            {"type": "prune.wanda", "sparsity": {"sweep": [0.2, 0.35, 0.5, 0.6]}},
            {"type": "quantize.rtn", "bits": {"sweep": [8, 6, 4, 3]}},
        ],
    },
    "orders": "both",
    "contour": {"measure": "kl", "level": 0.05},
}
KIND = Kind(
    request=SurfaceRequest,
    report=SurfaceReport,
    question="Do the damages of two knobs add up, and how far may both go?",
    example=EXAMPLE,
    handler="workers.diagnosis.surface.job:surface",
    helper="workers.diagnosis.surface.job:help_surface",
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
    view=f"{__name__}.view:blocks",
    answer=f"{__name__}.words:answer",
    class_of="at the chosen setting",
    knobs=2,
    fewer_knobs="give a list to a second value, or send it as kind sweep",
    metrics=METRICS,
)
