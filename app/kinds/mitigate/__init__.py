"""Jobs of kind `mitigate`."""

from app.kinds.kind import Kind, Phase
from app.kinds.mitigate.metrics import METRICS
from app.kinds.mitigate.report import MitigateReport
from app.kinds.mitigate.request import MitigateRequest

EXAMPLE = {
    "kind": "mitigate",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 3}]},
    "budget": {"bytes": 110_000_000, "added_latency": 0.1},
    "treatments": ["quantize.dynamic", "repair.lowrank", "protect"],
    "trials": 12,
}
KIND = Kind(
    request=MitigateRequest,
    report=MitigateReport,
    question="Find what makes the candidate better within a budget, and prove it",
    example=EXAMPLE,
    handler="workers.diagnosis.mitigate.job:mitigate",
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
    view=f"{__name__}.view:blocks",
    answer=f"{__name__}.view:heading",
    class_of="left",
    next_commands="app.cli.mitigate:next_commands",
    onwards="app.cli.mitigate:onwards",
    phases={
        "diagnose": Phase("finding where the damage sits"),
        "restored": Phase("measuring a part that is the reference's again"),
        "search": Phase("trying treatments", unit="trial"),
        "trial": Phase("measuring a treatment"),
    },
    metrics=METRICS,
)
