"""How the error of a model's hidden states comes about and grows from layer to layer: the *cascade*, measured.

h are the reference's states at a border, ĥ the candidate's at the matching one, e = ĥ − h. A step is a matched pair of
layers, or a gap of the alignment (`course`). The error that leaves a step splits exactly into two:

    - e_out = fresh + carried
    - fresh = f̂(h) − f(h), what the candidate's layers do to the reference's own states
    - carried = f̂(ĥ) − f̂(h), what they make of the error that enters them

amplification = ‖carried‖ / ‖e_in‖ over all tokens. The cascade of the whole model = ‖e_last‖ / √Σ‖fresh‖². It is 1 if
layers hand errors on unchanged and errors are unrelated. It is more if layers amplify or align them, less if they damp
them.

The first token of each window is left out: as an attention sink its state is often hundreds of times larger than any
other.

Names: N windows, L tokens of a window, D hidden size, B borders, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from app.kinds.attribute.blocks import ActivationBorder, ActivationGrowth, ErrorStep
from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.matching import Matching, course
from workers.diagnosis.attribute.sums import POSITIVE, Clusters, Sums, measured
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

Array = NDArray[np.float64]


def activation_growth(
    reference: Borders,
    candidate: Borders,
    matching: Matching,
    document_N: Sequence[int] | NDArray[np.integer],
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> ActivationGrowth:
    """Every candidate layer runs once, on the reference's states."""
    clusters = Clusters.of(document_N)
    steps = course(matching)
    borders = ((0, 0), *(step.leaving for step in steps))
    relative_B = Sums(clusters, (len(borders),))
    fresh_S, carried_S = (Sums(clusters, (len(steps),)) for _ in range(2))
    cascade = Sums(clusters, ())
    for start, end in reference.runner.batches():
        state, other = reference.read(0, start, end), candidate.read(0, start, end)
        _add_relative(relative_B, 0, start, state, other)
        cascade.add(start, np.zeros(end - start), _squares(other, state))
    for number, step in enumerate(steps):
        progress("activations", number, len(steps))
        layers = range(*step.candidate)
        for layer in layers:
            candidate.runner.skeleton.block(layer)
        for start, end in reference.runner.batches():
            check_cancelled()
            before, after = (reference.read(border, start, end) for border in step.reference)
            before_hat, after_hat = (candidate.read(border, start, end) for border in step.candidate)
            fed = before.to(candidate.dtype)
            for layer in layers:
                fed = candidate.runner.call(layer, fed)
            _add_relative(relative_B, number + 1, start, after, after_hat)
            fresh = _squares(fed, after)
            fresh_S.add(start, fresh, _squares(after), at=number)
            carried_S.add(start, _squares(after_hat, fed), _squares(before_hat, before), at=number)
            last = _squares(after_hat, after) if step is steps[-1] else np.zeros(end - start)
            cascade.add(start, last, fresh)
        for layer in layers:
            candidate.runner.skeleton.release(layer)
    progress("activations", len(steps), len(steps))
    relative = relative_B.means(seed=seed, support=POSITIVE, check_cancelled=check_cancelled)
    fresh_means, carried = (
        sums.means(seed=seed, rising=_root, support=POSITIVE, check_cancelled=check_cancelled)
        for sums in (fresh_S, carried_S)
    )
    return ActivationGrowth(
        measured=measured(reference.runner.tokens_NL, document_N),
        borders=tuple(
            ActivationBorder(reference=ours, candidate=theirs, relative=relative[index])
            for index, (ours, theirs) in enumerate(borders)
        ),
        steps=tuple(
            ErrorStep(
                reference=step.reference,
                candidate=step.candidate,
                gap=step.gap,
                fresh=fresh_means[index],
                amplification=carried[index],
            )
            for index, step in enumerate(steps)
        ),
        cascade=cascade.mean(seed=seed, rising=_root),
    )


def _add_relative(sums: Sums, border: int, start: int, state_NLD: torch.Tensor, other_NLD: torch.Tensor) -> None:
    """Adds ‖e‖ / ‖h‖ of each token of a batch."""
    size_NL = _inner(state_NLD).norm(dim=-1).clamp_min(1e-300)
    ratio_NL = (_inner(other_NLD) - _inner(state_NLD)).norm(dim=-1) / size_NL
    sums.add(start, ratio_NL.sum(1).cpu().numpy(), np.full(len(ratio_NL), float(ratio_NL.shape[1])), at=border)


def _inner(states_NLD: torch.Tensor) -> torch.Tensor:
    """Without each window's first token, in float64."""
    return states_NLD[:, 1:].to(torch.float64)


def _squares(first_NLD: torch.Tensor, second_NLD: torch.Tensor | None = None) -> Array:
    """(n): Σ‖a‖² or Σ‖a − b‖² of each window."""
    value = _inner(first_NLD) if second_NLD is None else _inner(first_NLD) - _inner(second_NLD)
    found: Array = value.square().sum((1, 2)).cpu().numpy()
    return found


def _root(value: float) -> float:
    """Of a ratio of sums of squares, whose interval may reach below 0."""
    return math.sqrt(max(0.0, value))
