"""Fits of curves and predictions of flips: no torch, so the front end may import them."""
