"""Gradient-aware pruning (`prune.gradient`): the weights that the reference's distribution hangs on stay.

Four parts: what gradients say of each weight (`score`), how many weights each module loses (`budget`), which go and how
the others take over (`sweep`, `kept`), and training of what stayed (`recovery`).
"""
