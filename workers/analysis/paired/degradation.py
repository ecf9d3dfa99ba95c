"""The average degradation on tasks: which part of the reference's accuracy is lost, in the mean over tasks.

Of one task it is (reference − candidate) / reference in accuracy, the published *accuracy loss*, with the score
interval for the ratio of paired shares (`ratio`). A gain is a loss below 0, and counts as such: the published figures
drop gains, which would bias a mean. Of several tasks it is the plain mean, each task once, however many items it has.

The mean's interval is made of the tasks' own limits, as items of different tasks are independent. This is the method of
variance estimates recovery (Zou, Huang and Zhang, Computational Statistics & Data Analysis 53 (2009) 1080–1085). With
losses d, limits l and u, and T tasks it is d̄ − √Σ(d − l)²/T to d̄ + √Σ(u − d)²/T. Of one task it is that task's own.
The interval is over items: the tasks are those that were asked, not a sample of all there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workers.analysis.paired import ratio
from workers.analysis.paired.pairs import Interval, Pairs


@dataclass(frozen=True)
class Loss:
    """A part of the reference's accuracy that is lost, below 0 if some is gained, and its 95 % interval."""

    mean: float
    ci: Interval


def of_task(pairs: Pairs) -> Loss:
    """Of one task. Raises ValueError if the reference answers nothing rightly."""
    low, high = ratio.interval(pairs)
    reference, candidate = pairs.both_right + pairs.harmful, pairs.both_right + pairs.helpful
    return Loss((reference - candidate) / reference, (1 - high, 1 - low))


def average(losses: Sequence[Loss]) -> Loss:
    """The mean over tasks. Raises ValueError if there is none."""
    if not losses:
        raise ValueError("a mean needs a task")
    mean = sum(loss.mean for loss in losses) / len(losses)
    below = math.sqrt(sum((loss.mean - loss.ci[0]) ** 2 for loss in losses)) / len(losses)
    above = math.sqrt(sum((loss.ci[1] - loss.mean) ** 2 for loss in losses)) / len(losses)
    return Loss(mean, (mean - below, mean + above))
