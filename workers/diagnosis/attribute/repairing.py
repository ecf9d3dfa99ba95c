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
from workers.diagnosis.attribute.readout import States, kl_sums
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
    last, windows = len(reference) - 1, shape[0]
    skeleton = reference.runner.skeleton
    clean_NLD = reference.read(last, 0, windows)
    files = [scratch / f"variant-{number:04d}.bin" for number in range(len(steps))]
    variants = [Activations(file, shape, reference.dtype) for file in files]
    for number, step in enumerate(steps):
        progress("direct effects", number, len(steps))
        _step(reference, candidate, step, variants[number], check_cancelled)
    harmed = [number for number, step in enumerate(steps) if not _same(variants[number], reference, step.reference[1])]

    def effect(states: Sequence[States]) -> Sums:
        """KL of each harmed variant; that of the others is exactly 0."""
        found = Sums(clusters, (len(steps),))
        np.add.at(found.bottom, clusters.of_window_N, shape[1])
        parts = kl_sums(
            (skeleton, clean_NLD), [(skeleton, one) for one in states], clusters, check_cancelled=check_cancelled
        )
        for number, part in zip(harmed, parts, strict=True):
            found.top[:, number] = part.top
        return found

    def skipped(number: int) -> States:
        """What leaves the last layer, with the fresh error added."""
        border = steps[number].reference[1]

        def states(window: int, tokens: slice) -> torch.Tensor:
            before_TD = reference.read(border, window, window + 1)[0, tokens].float()
            return clean_NLD[window, tokens].float() + (
                variants[number].read(window, window + 1)[0, tokens] - before_TD
            )

        return states

    def seen(number: int) -> States:
        """What leaves the last layer, where all layers saw the error."""
        return lambda window, tokens: variants[number].read(window, window + 1)[0, tokens]

    direct_S = effect([skipped(number) for number in harmed])
    progress("direct effects", len(steps), len(steps))
    for layer in range(last):
        progress("final effects", layer, last)
        active = [variants[number] for number in harmed if steps[number].reference[1] <= layer]
        if active:
            skeleton.block(layer)
            for states in active:
                for start, end in reference.runner.batches():
                    check_cancelled()
                    states.write(start, reference.runner.call(layer, states.read(start, end)))
            skeleton.release(layer)
    final_S = effect([seen(number) for number in harmed])
    for file in files:
        file.unlink()
    progress("final effects", last, last)
    return direct_S, final_S


def _same(states: Activations, reference: Borders, border: int) -> bool:
    """Whether nothing was changed."""
    return all(
        torch.equal(states.read(start, end), reference.read(border, start, end))
        for start, end in reference.runner.batches()
    )


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
