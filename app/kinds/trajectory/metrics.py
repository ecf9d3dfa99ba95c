"""Metrics of jobs of kind `trajectory`."""

from app.contracts.decoding import DECODERS
from app.contracts.metric import COMPARISON, Metric

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
