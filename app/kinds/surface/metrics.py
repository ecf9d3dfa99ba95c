"""Metrics of jobs of kind `surface`."""

from app.contracts.metric import COMPARISON, Metric

METRICS = (
    Metric(
        "surface_points",
        "counter",
        "Settings of surfaces, by whether the model took them.",
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
        "Share of the last surface's settings of both knobs where a departure from adding up is shown.",
        COMPARISON,
    ),
    Metric("surface_within", "gauge", "1 if a changed setting is within the chosen loss for sure, else 0.", COMPARISON),
    Metric(
        "surface_chosen_bytes",
        "gauge",
        "Bytes of the setting that the last surface chose, of the mildest where none is within.",
        COMPARISON,
    ),
)
