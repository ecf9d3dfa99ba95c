"""Calibrated decoding: calibrators, their fitting and selection, profiles, the on-line loop, verified decoding."""
