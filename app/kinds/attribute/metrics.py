"""Metrics of jobs of kind `attribute`."""

from app.contracts.metric import COMPARISON, Metric

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
        "KL of the worst part alone, in the last attribution; NaN where it is finite nowhere.",
        COMPARISON,
    ),
    Metric("attribution_worst_ratio", "gauge", "Share of the whole damage that this part alone costs.", COMPARISON),
    Metric(
        "attribution_explained_ratio",
        "gauge",
        "Share of the whole damage that the first parts cost, swapped together.",
        COMPARISON,
    ),
)
