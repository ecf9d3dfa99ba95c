"""Paired statistics of two models' answers to the same items: numpy and scipy only."""
