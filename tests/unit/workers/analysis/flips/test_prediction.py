"""What a prediction says of what it rests on."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.workers.analysis.flips.simulation import World, draw
from workers.analysis.flips.prediction import Predictor
from workers.analysis.flips.runs import Run

RUNS, _ = draw(World(), tasks=4, runs=32, items=300, rng=np.random.default_rng(0), low=0.01, high=1.0)


def test_without_a_run_nothing_is_predicted() -> None:
    found = Predictor([]).predict(0.2, 100)
    assert (found.status, found.rate, found.interval) == ("none", None, None)
    assert "no run to learn from has been seen" in found.sentence


def test_within_what_was_seen() -> None:
    found = Predictor(RUNS).predict(0.1, 300, task="f1")
    assert (found.status, found.known_task, found.runs, found.tasks) == ("seen", True, 32, 4)
    assert found.interval[0] <= found.rate <= found.interval[1]
    own = [run.kl for run in RUNS if run.fingerprint == "f1"]
    assert found.kl_range == (min(own), max(own))
    assert "32 runs of 4 tasks, of which 8 of this task" in found.sentence


@pytest.mark.parametrize("kl", [0.0001, 9.0])
def test_a_kl_beyond_the_runs_is_outside(kl: float) -> None:
    found = Predictor(RUNS).predict(kl, 300)
    assert found.status == "outside"
    assert "outside what has been seen" in found.sentence


def test_the_range_is_that_of_the_tasks_own_runs() -> None:
    near = [run for run in RUNS if run.fingerprint != "f0" or run.kl > 0.3]
    assert Predictor(near).predict(0.02, 300, task="f0").status == "outside"
    least = min(run.kl for run in near if run.fingerprint == "f1")
    assert Predictor(near).predict(least / 1.4, 300, task="f1").status == "seen"


def test_few_runs_are_called_few() -> None:
    few = [Run(f"j{n}", "t", "f", 200, 5 + n, 0.1 * (n + 1)) for n in range(4)]
    found = Predictor(few).predict(0.2, 200, task="f")
    assert found.status == "few"
    assert "few" in found.sentence


def test_another_task_is_outside_until_tasks_are_known_to_differ_how() -> None:
    one = Predictor([run for run in RUNS if run.fingerprint in {"f0", "f1"}])
    assert one.predict(0.1, 300, task="unheard").status == "outside"
    assert "no run of this task is among them" in one.predict(0.1, 300, task="unheard").sentence
    assert "no task is named" in one.predict(0.1, 300).sentence
    assert Predictor(RUNS).predict(0.1, 300, task="unheard").status == "seen"


def test_a_name_comes_before_a_fingerprint_that_begins_so() -> None:
    fingerprints = {"e2e": "b" * 16, "arc": "e2e9" + "a" * 12, "boolq": "e2e9aaaa" + "f" * 8}
    runs = [Run(f"j-{task}", task, found, 40, 2, 0.3, candidate="c") for task, found in fingerprints.items()]
    predictor = Predictor(runs)
    assert predictor.task("e2e") == "b" * 16
    assert predictor.task("e2e9") is None, "too short to stand for a fingerprint"
    assert predictor.task("e2e9aaaa") is None, "two begin so"
    assert predictor.task("e2e9aaaaf") == "e2e9aaaa" + "f" * 8
    assert predictor.task("absent") is predictor.task("") is None


def test_runs_of_another_number_of_items_are_runs_of_the_same_task() -> None:
    """Twelve, sixteen and twenty of the items, by three models: one task, whose name stands for all three runs."""
    sizes = {12: 0.447, 16: 1.63, 20: 0.1}
    drawn = [
        Run(f"j{n}", "example", f"draw{n}", n, 2, kl, candidate=f"c{n}", source="whole") for n, kl in sizes.items()
    ]
    predictor = Predictor([*drawn, Run("j", "example", "whole", 206, 20, 0.3, candidate="c")])
    assert {predictor.task(named) for named in ("example", "whole", "draw12", "draw16")} == {"whole"}
    found = predictor.predict(0.39, 206, task=predictor.task("example"))
    assert (found.status, found.tasks, found.kl_range) == ("few", 1, (0.1, 1.63))
    assert "4 runs of 1 task" in found.sentence
    assert predictor.predict(0.39, 206).status == "outside"


@pytest.mark.parametrize(("kl", "items"), [(0.0, 10), (-1.0, 10), (float("nan"), 10), (float("inf"), 10), (0.1, 0)])
def test_what_cannot_be_is_refused(kl: float, items: int) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Predictor(RUNS).predict(kl, items)


def test_runs_of_other_reference_models_alone_are_outside() -> None:
    small = Predictor([replace(run, reference="small") for run in RUNS])
    assert small.predict(0.1, 300, task="f1", reference="small").status == "seen"
    assert small.predict(0.1, 300, task="f1").status == "seen", "the reference model of the question is not known"
    large = small.predict(0.1, 300, task="f1", reference="large")
    assert (large.status, large.known_task) == ("outside", True)
    assert "none of these runs is of this reference model" in large.sentence
    assert large.interval == small.predict(0.1, 300, task="f1").interval, "the numbers are shown all the same"


def test_one_run_of_the_reference_model_or_runs_that_do_not_tell_theirs_are_enough() -> None:
    mixed = [replace(run, reference="large" if run.job == RUNS[0].job else "small") for run in RUNS]
    of_it = RUNS[0].fingerprint
    of_others = next(run.fingerprint for run in RUNS if run.fingerprint != of_it)
    assert Predictor(mixed).predict(RUNS[0].kl, 300, task=of_it, reference="large").status == "seen"
    assert Predictor(mixed).predict(0.1, 300, task=of_others, reference="large").status == "outside"
    assert Predictor(RUNS).predict(0.1, 300, task="f1", reference="large").status == "seen"
