"""Jobs of kind `surface`."""

from app.contracts.metric import COMPARISON, Metric
from app.kinds.kind import Kind
from app.kinds.surface.notices import SurfaceNotice
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
METRICS = (
    Metric(
        "surface_points",
        "counter",
        "Settings of surfaces that were measured or refused.",
        ("outcome",),
        {"outcome": ("measured", "refused")},
    ),
    Metric(
        "surface_interaction_nats",
        "gauge",
        "Largest interaction of the last surface in either order, nats per token.",
        COMPARISON,
    ),
    Metric("surface_interaction_low_nats", "gauge", "Lower 95 % limit of that interaction.", COMPARISON),
    Metric("surface_interaction_high_nats", "gauge", "Upper 95 % limit of that interaction.", COMPARISON),
    Metric(
        "surface_departing_ratio",
        "gauge",
        "Share of the last surface's settings of both knobs that show an interaction.",
        COMPARISON,
    ),
    Metric("surface_within", "gauge", "1 if a changed setting is within the chosen loss for sure, else 0.", COMPARISON),
    Metric(
        "surface_chosen_bytes",
        "gauge",
        "Bytes of the last surface's chosen setting, or of the mildest if none is within the loss.",
        COMPARISON,
    ),
)
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
    notices=SurfaceNotice,
)
