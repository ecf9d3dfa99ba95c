"""Gradient-aware pruning (`prune.gradient`): the weights that the reference's distribution hangs on stay.

Four parts: what gradients say of each weight (`score`) and how many weights each module loses (`budget`). Then which go
and how the others take over (`sweep`, `kept`), and training of what stayed (`recovery`).
"""
