"""Jobs of kind `attribute`."""

from app.contracts.metric import COMPARISON, Metric
from app.kinds.attribute.notices import AttributeNotice
from app.kinds.attribute.report import AttributeReport
from app.kinds.attribute.request import AttributeRequest
from app.kinds.kind import Kind, Phase

EXAMPLE = {
    "kind": "attribute",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "levels": ["layer", "module"],
    "tokens": 4096,
    "budget": 48,
    "top": 6,
}
# Of what goes on inside the two models.
_INSIDE = {
    "activations": "measuring how errors grow",
    "attention": "comparing where the heads look",
    "candidate": "the candidate, layer by layer",
    "gaps": "layers without a partner",
    "reference": "the reference, layer by layer",
    "similarity": "which layer is which",
}
METRICS = (
    Metric(
        "attribution_swaps",
        "counter",
        "Parts that were swapped, by stage of the search.",
        ("stage",),
        {"stage": ("layers", "parts")},
    ),
    Metric(
        "attribution_worst_nats",
        "gauge",
        "KL of the worst part alone, in the last attribution; NaN if it is finite nowhere.",
        COMPARISON,
    ),
    Metric(
        "attribution_worst_ratio", "gauge", "Share of the whole damage that the worst part alone causes.", COMPARISON
    ),
    Metric(
        "attribution_explained_ratio",
        "gauge",
        "Share of the whole damage that the first parts cause, swapped together.",
        COMPARISON,
    ),
)
KIND = Kind(
    request=AttributeRequest,
    report=AttributeReport,
    question="Which layer, module, head or expert does the damage, and why?",
    example=EXAMPLE,
    handler="workers.diagnosis.attribute.job:attribute",
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
    answer=f"{__name__}.words:heading",
    view=f"{__name__}.view:blocks",
    phases={
        "borders": Phase("running both models to every layer border"),
        "borders: reference": Phase("running the reference to every layer border"),
        "borders: candidate": Phase("running the candidate to every layer border"),
        "candidate on the subset": Phase("scoring the candidate on a part of the text"),
        "compare weights": Phase("finding the parts that differ"),
        "swap layers": Phase("swapping layers"),
        "swap parts": Phase("swapping parts"),
        "look into parts": Phase("examining the worst parts"),
        **{f"inside: {phase}": Phase(f"comparing inside: {words}") for phase, words in _INSIDE.items()},
    },
    metrics=METRICS,
    notices=AttributeNotice,
)
