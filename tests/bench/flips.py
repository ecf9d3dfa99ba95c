"""`python -m tests.bench.flips`: how often the prediction intervals of flip rates cover; writes tests/bench/flips.csv.

Worlds are drawn (how flips rise with KL, how tasks differ, how runs differ), runs are drawn from each, a model is
fitted and predicts one more run, which is then drawn. An honest 95 % interval holds 95 % of them. Worlds of the model's
own form, and others that the model does not know: a flip rate that levels off (candidates that guess at worst) and
one that rises with KL itself and not with its root. The rows of real runs, which `tests.bench.flips_real` writes, stay.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.bench.rows import Row, read, write
from workers.analysis.flips.model import CENTRE, INTERCEPT_MEAN, RUN_SCALE, SLOPE_MEAN, TASK_SCALE, fit
from workers.analysis.flips.runs import Run

RESULTS = Path(__file__).with_name("flips.csv")
# Simulations a row: a coverage of 95 % is then known to a standard error of 0.7 points.
TIMES = 1000
# (case, tasks, runs, whether the predicted task is among them)
CASES = (
    ("3_tasks_6_runs_new_task", 3, 6, False),
    ("1_task_6_runs_same_task", 1, 6, True),
    ("1_task_12_runs_same_task", 1, 12, True),
    ("4_tasks_16_runs_same_task", 4, 16, True),
    ("4_tasks_16_runs_new_task", 4, 16, False),
    ("8_tasks_40_runs_new_task", 8, 40, False),
)
# Standard deviations of α and β over worlds of the model's own form.
SPREADS = (0.7, 0.2)
Curve = Callable[[float], float]


def of_the_form(rng: np.random.Generator) -> Curve:
    """α + β ln KL, nearer to the centres of their priors than these allow; tasks and runs spread as the priors say."""
    intercept, slope = rng.normal(INTERCEPT_MEAN, SPREADS[0]), rng.normal(SLOPE_MEAN, SPREADS[1])
    return lambda kl: float(intercept + slope * (math.log(kl) - CENTRE))


def levelling_off(rng: np.random.Generator) -> Curve:
    """A share that saturates at a third."""
    scale = rng.uniform(0.3, 1.5)
    return lambda kl: math.log(-math.log1p(-0.33 * (1 - math.exp(-math.sqrt(kl) / scale))))


def proportional(rng: np.random.Generator) -> Curve:
    """A share that rises with KL itself."""
    factor = rng.uniform(0.2, 0.8)
    return lambda kl: math.log(factor * kl)


WORLDS = {"priors": of_the_form, "levelling_off": levelling_off, "proportional": proportional}


def coverage(
    world: str, tasks: int, runs: int, known: bool, *, items: int = 300, times: int = TIMES
) -> tuple[float, float]:
    """(share of intervals that hold the run they predict, their median width)."""
    rng = np.random.default_rng(1)
    held, widths = 0, []
    for number in range(times):
        curve = WORLDS[world](rng)
        task_sd, run_sd = abs(rng.normal(0, TASK_SCALE)), abs(rng.normal(0, RUN_SCALE))
        effects = rng.normal(0, task_sd, tasks + 1)

        def one(index: int, task: int, curve: Curve = curve, effects=effects, run_sd: float = run_sd) -> Run:  # type: ignore[no-untyped-def]
            kl = float(np.exp(rng.uniform(math.log(0.005), math.log(1.5))))
            eta = curve(kl) + effects[task] + rng.normal(0, run_sd)
            flips = int(rng.binomial(items, 1 - math.exp(-math.exp(min(eta, 3.0)))))
            return Run(f"j{index}", f"t{task}", f"t{task}", items, flips, kl)

        model = fit([one(index, index % tasks) for index in range(runs)])
        new = one(runs, 0 if known else tasks)
        low, _, high = model.predict(new.kl, items, task=new.fingerprint, seed=number)
        held += low <= new.rate <= high
        widths.append(high - low)
    return held / times, float(np.median(widths))


def main(times: int) -> None:
    """Measures every case and writes the CSV."""
    rows = []
    for world in WORLDS:
        for case, tasks, runs, known in CASES:
            share, width = coverage(world, tasks, runs, known, times=times)
            name = f"{world}_{case}"
            rows += [
                Row("flips", name, "coverage_of_95", share, "ratio"),
                Row("flips", name, "median_width", width, "ratio"),
                Row("flips", name, "simulations", times, "count"),
            ]
            sys.stderr.write(f"{name:45} {share:.3f} {width:.3f}\n")
    real = [row for row in read(RESULTS) if row.bench != "flips"] if RESULTS.is_file() else []
    write(RESULTS, rows + real)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TIMES)
