"""Jobs of kind `trajectory`."""

from app.contracts.decoding import DECODERS
from app.contracts.metric import COMPARISON, Metric
from app.kinds.kind import Kind, Phase
from app.kinds.trajectory.notices import TrajectoryNotice
from app.kinds.trajectory.report import TrajectoryReport
from app.kinds.trajectory.request import TrajectoryRequest

EXAMPLE = {
    "kind": "trajectory",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "candidates": [{"model": "smollm2-135m", "recipe": [{"type": "prune.wanda", "sparsity": 0.5}]}],
    "decoders": [{"name": "greedy"}, {"name": "top_p", "p": 0.9}, {"name": "contrastive"}],
    "prompts": 32,
    "tokens": 128,
}
METRICS = (
    Metric(
        "trajectory_kl_candidate_text_nats",
        "gauge",
        "Mean KL in nats per token on the text that the candidate writes itself, first decoder.",
        COMPARISON,
    ),
    Metric(
        "trajectory_shared_prefix_tokens",
        "gauge",
        "Mean tokens before the texts of candidate and reference part, first decoder.",
        COMPARISON,
    ),
    Metric(
        "trajectory_amplification_ratio",
        "gauge",
        "KL on the candidate's own text over KL on the reference's text at the same positions.",
        (*COMPARISON, "decoder"),
        {"decoder": DECODERS},
    ),
)
KIND = Kind(
    request=TrajectoryRequest,
    report=TrajectoryReport,
    question="What does the modification do to generated text?",
    example=EXAMPLE,
    handler="workers.diagnosis.trajectory.job:trajectory",
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
    view=f"{__name__}.view:blocks",
    answer=f"{__name__}.words:heading",
    class_of="by single steps",
    phases={
        "generate": Phase("generating texts", unit="token"),
        "divergence": Phase("comparing the distributions along the texts", unit="window"),
        "shapes": Phase("measuring distances after each decoder's cut", unit="position"),
    },
    metrics=METRICS,
    notices=TrajectoryNotice,
)
