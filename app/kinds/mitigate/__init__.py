"""Jobs of kind `mitigate`."""

from app.contracts.metric import COMPARISON, PHASE_BUCKETS, Metric
from app.kinds.kind import Kind, Phase
from app.kinds.mitigate.notices import MitigateNotice
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
METRICS = (
    Metric(
        "mitigate_trials",
        "counter",
        "Trials of treatments that were measured or refused.",
        ("outcome",),
        {"outcome": ("measured", "refused")},
    ),
    Metric(
        "mitigate_trial_seconds",
        "histogram",
        "Time to make and measure one trial, by rung.",
        ("rung",),
        {"rung": ("cheap", "full")},
        PHASE_BUCKETS,
    ),
    Metric("mitigate_trial_running", "gauge", "1 while a trial is made and measured, else 0.", of_child=True),
    # The recipe of these labels is the candidate's own.
    Metric(
        "mitigate_best_saved_nats",
        "gauge",
        "Nats per token that the best full trial of the last mitigation saved on the documents to choose by.",
        COMPARISON,
    ),
    Metric("mitigate_saved_nats", "gauge", "Nats per token that the recommended recipe saved on the test.", COMPARISON),
    Metric("mitigate_saved_low_nats", "gauge", "Lower 95 % limit of these nats.", COMPARISON),
    Metric("mitigate_saved_high_nats", "gauge", "Upper 95 % limit of these nats.", COMPARISON),
    Metric("mitigate_helped", "gauge", "1 if the recommended recipe saves nats for sure, else 0.", COMPARISON),
    Metric("mitigate_finished_timestamp_seconds", "gauge", "When that mitigation ended, Unix time.", COMPARISON),
)
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
        "diagnose": Phase("finding the damaged parts"),
        "restored": Phase("measuring with a restored part"),
        "search": Phase("trying treatments", unit="trial"),
        "trial": Phase("measuring a treatment"),
    },
    metrics=METRICS,
    notices=MitigateNotice,
)
