"""Metrics of jobs of kind `sweep`."""

from app.contracts.metric import COMPARISON, Metric

METRICS = (
    Metric(
        "sweep_points",
        "counter",
        "Settings of sweeps, by whether the model took them.",
        ("outcome",),
        {"outcome": ("measured", "refused")},
    ),
    Metric("sweep_threshold_ratio", "gauge", "Share removed where the last sweep's perplexity turns.", COMPARISON),
    Metric("sweep_threshold_low_ratio", "gauge", "Lower 95 % limit of that share.", COMPARISON),
    Metric("sweep_threshold_high_ratio", "gauge", "Upper 95 % limit of that share.", COMPARISON),
    Metric("sweep_mild_ratio", "gauge", "Share removed at the strongest setting whose damage stayed mild.", COMPARISON),
)
