"""Fits of curves, predictions of flips, statistics of paired answers: no torch, so the front end may import them."""
