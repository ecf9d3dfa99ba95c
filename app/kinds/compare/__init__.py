"""Jobs of kind `compare`."""

from app.kinds.compare.report import CompareReport
from app.kinds.compare.request import CompareRequest
from app.kinds.kind import Kind
from app.verdicts import Level

EXAMPLE = {
    "kind": "compare",
    "reference": {"model": "smollm2-135m"},
    "candidate": {
        "model": "smollm2-135m",
        "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}],
    },
    "text": {
        "source": "inline",
        "documents": [{"id": "d1", "domain": "prose", "text": "The river had been high all spring."}],
    },
    "window": 512,
    "seed": 0,
    "metadata": {"commit": "4f2c1a9"},
}
KIND = Kind(
    request=CompareRequest,
    report=CompareReport,
    question="How far is the candidate from the reference?",
    example=EXAMPLE,
    handler="workers.diagnosis.compare.job:compare",
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
    view=f"{__name__}.view:blocks",
    rules=Level,
    judge="app.verdicts:judge",
)
