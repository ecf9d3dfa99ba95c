"""Two aligned models as one course of steps: each matched pair of layers, and each gap, from border to border."""

from __future__ import annotations

from dataclasses import dataclass

from workers.diagnosis.attribute.matching import Matching


@dataclass(frozen=True)
class Course:
    """One step: the reference goes from border `reference[0]` to `reference[1]`, the candidate likewise; a matched pair
    of layers is one border on in both, a gap (`gap`) as many as it has layers."""

    reference: tuple[int, int]
    candidate: tuple[int, int]
    gap: bool

    @property
    def leaving(self) -> tuple[int, int]:
        """The borders at its end."""
        return self.reference[1], self.candidate[1]


def course(matching: Matching) -> tuple[Course, ...]:
    """All steps in order; they begin at border 0 of both models and end at the last one of both."""
    steps = [Course((ours, ours + 1), (theirs, theirs + 1), gap=False) for ours, theirs in matching.pairs]
    for gap in matching.gaps:
        start = gap.after_reference - len(gap.reference), gap.after_candidate - len(gap.candidate)
        steps.append(Course((start[0], gap.after_reference), (start[1], gap.after_candidate), gap=True))
    return tuple(sorted(steps, key=lambda step: (step.reference, step.candidate)))
