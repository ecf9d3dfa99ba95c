"""Direct and final effect of each step's fresh error: all variants of the reference go through its layers together, so
that each layer's weights are read once.

Names: N windows, L tokens of a window, D hidden size, S steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.course import Course
from workers.diagnosis.attribute.readout import kl_sums
from workers.diagnosis.attribute.sums import Clusters, Sums
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled, Progress


def effects(
    reference: Borders,
    candidate: Borders,
    steps: Sequence[Course],
    clusters: Clusters,
    scratch: Path,
    *,
    progress: Progress,
    check_cancelled: CheckCancelled,
) -> tuple[Sums, Sums]:
    """(direct, final): KL(reference ‖ variant) of each step, nats a token. `candidate` lends its layers alone: its
    borders are not read."""
    shape = (*reference.runner.tokens_NL.shape, reference.hidden_size)
    direct_S, final_S = Sums(clusters, (len(steps),)), Sums(clusters, (len(steps),))
    last, windows = len(reference) - 1, shape[0]
    skeleton = reference.runner.skeleton
    clean_NLD = reference.read(last, 0, windows)
    files = [scratch / f"variant-{number:04d}.bin" for number in range(len(steps))]
    variants = [Activations(file, shape, reference.dtype) for file in files]
    unharmed: set[int] = set()

    def effect(sums: Sums, number: int, last_NLD: torch.Tensor) -> None:
        found = kl_sums((skeleton, clean_NLD), (skeleton, last_NLD), clusters, check_cancelled=check_cancelled)
        sums.top[:, number], sums.bottom[:, number] = found.top, found.bottom

    for number, step in enumerate(steps):
        progress("direct effects", number, len(steps))
        _step(reference, candidate, step, variants[number], check_cancelled)
        fresh_NLD = variants[number].read(0, windows).float() - reference.read(step.reference[1], 0, windows).float()
        if bool(fresh_NLD.any()):
            effect(direct_S, number, clean_NLD.float() + fresh_NLD)
        else:  # no effect, exactly
            unharmed.add(number)
            for sums in (direct_S, final_S):
                np.add.at(sums.bottom[:, number], clusters.of_window_N, shape[1])
    progress("direct effects", len(steps), len(steps))
    for layer in range(last):
        progress("final effects", layer, last)
        active = [
            variants[number]
            for number, step in enumerate(steps)
            if step.reference[1] <= layer and number not in unharmed
        ]
        if active:
            skeleton.block(layer)
            for states in active:
                for start, end in reference.runner.batches():
                    check_cancelled()
                    states.write(start, reference.runner.call(layer, states.read(start, end)))
            skeleton.release(layer)
    for number, file in enumerate(files):
        if number not in unharmed:
            effect(final_S, number, variants[number].read(0, windows))
        file.unlink()
    progress("final effects", last, last)
    return direct_S, final_S


def _step(
    reference: Borders, candidate: Borders, step: Course, into: Activations, check_cancelled: CheckCancelled
) -> None:
    """The reference's states after the candidate's layers of one step."""
    layers = range(*step.candidate)
    for layer in layers:
        candidate.runner.skeleton.block(layer)
    for start, end in reference.runner.batches():
        check_cancelled()
        states_NLD = reference.read(step.reference[0], start, end).to(candidate.dtype)
        for layer in layers:
            states_NLD = candidate.runner.call(layer, states_NLD)
        into.write(start, states_NLD)
    for layer in layers:
        candidate.runner.skeleton.release(layer)
