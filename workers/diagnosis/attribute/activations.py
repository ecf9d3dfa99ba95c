"""How the error of a model's hidden states comes about and grows from layer to layer: the *cascade*, measured.

h are the reference's states at a border, ĥ the candidate's at the matching one, e = ĥ − h. A step is a
matched pair of layers, or a gap of the alignment (`course`). Per border: the relative error ‖e‖/‖h‖ and the cosine of
each token, SQNR = 10 log₁₀ Σ‖h‖²/Σ‖e‖² in dB. Per step the error that leaves it is taken apart, exactly:

    e_out = fresh + carried     fresh = f̂(h) − f(h), what the candidate's layers do to the reference's own states
                                carried = f̂(ĥ) − f̂(h), what they make of the error that enters them

amplification = ‖carried‖ / ‖e_in‖ over all tokens, and the cascade of the whole model = ‖e_last‖ / √Σ‖fresh‖²: 1 where
errors are handed on unchanged and do not know of each other, more where layers amplify or align them, less where they
damp them.

*Self-repair* (McGrath et al., "The Hydra Effect", 2307.15771; Rushing & Nanda, 2402.15390): the direct effect of a step
is KL of the reference with its fresh error added to what leaves the last layer, so that no later layer sees it (the
final norm does); the final effect is KL where all later layers of the reference see it. Their difference over the
direct effect is the share that later layers repair; negative where they make it worse.

The first token of each window is left out of all but the KLs: as an attention sink its state is often hundreds of times
larger than any other.

Names: N windows, L tokens of a window, D hidden size, B borders, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.matching import Course, Matching, course
from workers.diagnosis.attribute.readout import States, kl_sums
from workers.diagnosis.attribute.sums import Clusters, Sums
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

Array = NDArray[np.float64]
# A channel whose root mean square exceeds the median channel's so many times is an outlier; the factor is the magnitude
# of LLM.int8 (2208.07339), which is of states normalized to about 1.
OUTLIER = 6.0


@dataclass(frozen=True)
class Outlier:
    """A channel of large states: `ratio` its root mean square over the median channel's, `error_share` of the squared
    error at this border."""

    channel: int
    ratio: float
    error_share: float


@dataclass(frozen=True)
class ActivationErrors:
    """Sums are over tokens but each window's first.

    `borders` (reference, candidate) of B borders; `relative_B` mean ‖e‖/‖h‖, `cosine_B`, `energy_B` Σ‖e‖²/Σ‖h‖² (its
    square root is the pooled relative error, −10 log₁₀ of it SQNR). `steps`, and of each `fresh_S` Σ‖fresh‖² and
    `carried_S` Σ‖carried‖², `grown_S` Σ‖e_out‖², over Σ‖e_in‖² (`fresh_S`: over Σ‖h_out‖²). `cascade`: Σ‖e_last‖² over
    Σ‖fresh‖², embeddings' included. `outliers_B`: outlier channels, largest first; `outlier_share_B` of the squared
    error that is in them.
    """

    borders: tuple[tuple[int, int], ...]
    relative_B: Sums
    cosine_B: Sums
    energy_B: Sums
    outliers_B: tuple[tuple[Outlier, ...], ...]
    outlier_share_B: Sums
    steps: tuple[Course, ...]
    fresh_S: Sums
    carried_S: Sums
    grown_S: Sums
    cascade: Sums


def activation_errors(
    reference: Borders,
    candidate: Borders,
    matching: Matching,
    document_N: Sequence[int] | NDArray[np.integer],
    *,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> ActivationErrors:
    """Every candidate layer runs once, on the reference's states."""
    clusters = Clusters.of(document_N)
    steps = course(matching)
    borders = ((0, 0), *(step.leaving for step in steps))
    at_borders = _AtBorders(clusters, len(borders), reference.hidden_size)
    fresh_S, carried_S, grown_S = (Sums(clusters, (len(steps),)) for _ in range(3))
    cascade = Sums(clusters, ())
    for start, end in reference.runner.batches():
        at_borders.see(0, start, reference.read(0, start, end), candidate.read(0, start, end))
        cascade.add(
            start, np.zeros(end - start), _squares(candidate.read(0, start, end), reference.read(0, start, end))
        )
    at_borders.leave(0)
    for number, step in enumerate(steps):
        progress("activations", number, len(steps))
        layers = range(*step.candidate)
        modules = [candidate.runner.skeleton.block(layer) for layer in layers]
        for start, end in reference.runner.batches():
            check_cancelled()
            before, before_hat = (
                reference.read(step.reference[0], start, end), candidate.read(step.candidate[0], start, end)
            )  # fmt: skip
            after, after_hat = (
                reference.read(step.reference[1], start, end), candidate.read(step.candidate[1], start, end)
            )  # fmt: skip
            fed = before.to(candidate.dtype)
            for layer in layers:
                fed = candidate.runner.call(layer, fed)
            at_borders.see(number + 1, start, after, after_hat)
            entering = _squares(before_hat, before)
            fresh = _squares(fed, after)
            fresh_S.add(start, fresh, _squares(after), at=number)
            carried_S.add(start, _squares(after_hat, fed), entering, at=number)
            grown_S.add(start, _squares(after_hat, after), entering, at=number)
            cascade.add(start, _squares(after_hat, after) if step is steps[-1] else np.zeros(end - start), fresh)
        at_borders.leave(number + 1)
        for layer, _ in zip(layers, modules, strict=True):
            candidate.runner.skeleton.release(layer)
    progress("activations", len(steps), len(steps))
    return ActivationErrors(
        borders,
        at_borders.relative,
        at_borders.cosine,
        at_borders.energy,
        tuple(at_borders.outliers),
        at_borders.share,
        steps,
        fresh_S,
        carried_S,
        grown_S,
        cascade,
    )


@dataclass(frozen=True)
class SelfRepair:
    """Of each step: `direct_S` and `final_S` KL in nats per token, `repaired_S` (direct − final) / direct; over the
    windows `windows`."""

    steps: tuple[Course, ...]
    windows: tuple[int, ...]
    direct_S: Sums
    final_S: Sums
    repaired_S: Sums


def self_repair(
    reference: Borders,
    candidate: Borders,
    matching: Matching,
    document_N: Sequence[int] | NDArray[np.integer],
    scratch: Path,
    *,
    windows: Sequence[int],
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> SelfRepair:
    """Direct and final effect of each step's fresh error on some windows. The reference's layers run once for each step
    before them: half a pass a step; states lie in mapped files in `scratch`."""
    index = list(windows)
    chosen = Clusters.of(np.asarray(document_N)[index])
    steps = course(matching)
    # borders of their own, so that every run has batches of one shape and no change is exactly no change
    clean = Borders(
        reference.runner.skeleton,
        reference.runner.tokens_NL[index],
        scratch,
        name="self-repair borders",
        progress=progress,
        check_cancelled=check_cancelled,
    )
    direct_S, final_S = effects(
        clean, candidate, steps, chosen, scratch, progress=progress, check_cancelled=check_cancelled
    )
    repaired_S = Sums(chosen, (len(steps),))
    repaired_S.top, repaired_S.bottom = direct_S.top - final_S.top, direct_S.top.copy()
    return SelfRepair(steps, tuple(windows), direct_S, final_S, repaired_S)


def sqnr(energy: float) -> float:
    """dB of Σ‖e‖²/Σ‖h‖²; infinite where there is no error."""
    return math.inf if energy <= 0 else -10 * math.log10(energy)


class _AtBorders:
    """What is summed up at each border. Borders are seen one after the other: `see` its batches, then `leave` it."""

    def __init__(self, clusters: Clusters, borders: int, width: int) -> None:
        self.relative, self.cosine, self.energy, self.share = (Sums(clusters, (borders,)) for _ in range(4))
        self.outliers: list[tuple[Outlier, ...]] = []
        self._cluster_of_N = torch.from_numpy(clusters.of_window_N)
        self._states_D = torch.zeros(width, dtype=torch.float64)
        self._errors_KD = torch.zeros(clusters.count, width, dtype=torch.float64)

    def see(self, border: int, start: int, state_NLD: torch.Tensor, other_NLD: torch.Tensor) -> None:
        """A batch of both models' states."""
        h_NLD, error_NLD = _inner(state_NLD), _inner(other_NLD) - _inner(state_NLD)
        size_NL, off_NL = h_NLD.norm(dim=-1), error_NLD.norm(dim=-1)
        count = np.full(len(h_NLD), float(h_NLD.shape[1]))
        ratio_NL = torch.where(off_NL > 0, off_NL / size_NL.clamp_min(1e-300), torch.zeros_like(off_NL))
        self.relative.add(start, ratio_NL.sum(1).numpy(), count, at=border)
        cosine_NL = torch.cosine_similarity(h_NLD, h_NLD + error_NLD, dim=-1, eps=1e-300)
        self.cosine.add(start, cosine_NL.sum(1).numpy(), count, at=border)
        self.energy.add(start, off_NL.square().sum(1).numpy(), size_NL.square().sum(1).numpy(), at=border)
        self._states_D += h_NLD.square().sum((0, 1))
        self._errors_KD.index_add_(0, self._cluster_of_N[start : start + len(h_NLD)], error_NLD.square().sum(1))

    def leave(self, border: int) -> None:
        """Shows the outlier channels of a border, and the share of the squared error in them (of no error: nothing)."""
        ratio_D = (self._states_D / self._states_D.median().clamp_min(1e-300)).sqrt()
        error_D, error_K = self._errors_KD.sum(0), self._errors_KD.sum(1)
        whole = float(error_D.sum())
        channels = [int(one) for one in ratio_D.argsort(descending=True) if ratio_D[one] > OUTLIER]
        share_D = error_D / whole if whole > 0 else torch.zeros_like(error_D)
        self.outliers.append(tuple(Outlier(one, float(ratio_D[one]), float(share_D[one])) for one in channels))
        self.share.top[:, border] = self._errors_KD[:, channels].sum(1).numpy()
        self.share.bottom[:, border] = error_K.numpy()
        self._states_D.zero_()
        self._errors_KD.zero_()


def _inner(states_NLD: torch.Tensor) -> torch.Tensor:
    """Without each window's first token, in float64."""
    return states_NLD[:, 1:].to(torch.float64)


def _squares(first_NLD: torch.Tensor, second_NLD: torch.Tensor | None = None) -> Array:
    """(n): Σ‖a‖² or Σ‖a − b‖² of each window."""
    value = _inner(first_NLD) if second_NLD is None else _inner(first_NLD) - _inner(second_NLD)
    found: Array = value.square().sum((1, 2)).numpy()
    return found


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
    """(direct, final): KL(reference ‖ variant) of each step, nats per token. `candidate` lends its layers alone: its
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
