"""Runs drawn from the model with known parameters."""

import math
from dataclasses import dataclass

import numpy as np

from workers.analysis.flips.model import CENTRE
from workers.analysis.flips.runs import Run


@dataclass(frozen=True)
class World:
    """Parameters, as in `workers.analysis.flips.model`."""

    intercept: float = math.log(0.12)
    slope: float = 0.5
    task_sd: float = 0.3
    run_sd: float = 0.15

    def rate(self, kl: float, effect: float, rng: np.random.Generator) -> float:
        """The true flip rate of a new run."""
        eta = self.intercept + self.slope * (math.log(kl) - CENTRE) + effect + rng.normal(0, self.run_sd)
        return 1 - math.exp(-math.exp(eta))


def draw(
    world: World, *, tasks: int, runs: int, items: int, rng: np.random.Generator, low: float = 0.005, high: float = 1.5
) -> tuple[list[Run], list[float]]:
    """Runs, task by turns, at KL spread over a logarithmic axis; and the tasks' effects."""
    effects = [float(effect) for effect in rng.normal(0, world.task_sd, tasks)]
    found = []
    for number in range(runs):
        task = number % tasks
        kl = float(np.exp(rng.uniform(math.log(low), math.log(high))))
        flips = int(rng.binomial(items, world.rate(kl, effects[task], rng)))
        found.append(Run(f"j{number}", f"t{task}", f"f{task}", items, flips, kl, candidate=f"c{number}"))
    return found, effects
