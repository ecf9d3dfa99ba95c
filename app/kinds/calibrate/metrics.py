"""Metrics of jobs of kind `calibrate`."""

from app.contracts.metric import COMPARISON, Metric

METRICS = (
    Metric(
        "calibrate_profiles",
        "counter",
        "Profiles made, by whether the test let them pass.",
        ("outcome",),
        {"outcome": ("passed", "refused")},
    ),
    Metric(
        "calibrate_saved_ratio", "gauge", "Share of the raw KL that the last calibration saved on test.", COMPARISON
    ),
    Metric("calibrate_passed", "gauge", "1 where the last calibration proved itself on test, else 0.", COMPARISON),
)
