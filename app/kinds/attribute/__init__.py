"""Jobs of kind `attribute`."""

from app.kinds.attribute.metrics import METRICS
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
    "direct effects": "direct effects of the layers",
    "final effects": "final effects of the layers",
    "gaps": "layers without a partner",
    "reference": "the reference, layer by layer",
    "routers of the candidate": "routers of the candidate",
    "routers of the reference": "routers of the reference",
    "routing": "experts that tokens go to",
    "self-repair borders": "the reference, for self-repair",
    "similarity": "which layer is which",
}
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
        "kinds of token": Phase("telling kinds of token apart"),
        "compare weights": Phase("looking for parts that differ"),
        "swap layers": Phase("swapping layers"),
        "swap parts": Phase("swapping parts"),
        "look into parts": Phase("looking into the worst parts"),
        **{f"inside: {phase}": Phase(f"looking inside: {words}") for phase, words in _INSIDE.items()},
    },
    metrics=METRICS,
)
