"""Robustness thresholds: where a curve of damage against the share removed changes regime, and how sure that is.

Needs numpy and scipy only, so that `hemostat threshold` runs beside the front end. `request` reads a file, `answer`
fits and judges; docs/threshold.md shows what the answer means.
"""
