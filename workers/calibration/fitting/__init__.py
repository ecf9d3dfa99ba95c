"""Fitting calibrators by minimizing KL(reference‖calibrated) on stored hidden states."""
