"""A sweep for flips: checked before it runs, gone on with where it broke off, and what it says on the way."""

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from app.cli import flips_sweep
from app.cli.flips_sweep import Step, Swept, steps_of, sweep
from app.contracts.errors import ErrorCode, HemostatError
from tests.support.tasks_reports import task, tasks_report

Json = dict[str, Any]
RECIPES = ("quantize.rtn:bits=8", "quantize.rtn:bits=4", "prune.magnitude:sparsity=0.3")
AWAY = HemostatError(ErrorCode.UNAVAILABLE, "no service answers")
BROKEN = HemostatError(ErrorCode.ENGINE_FAILED, "the engine ended")


class Service:
    """Takes every request but those of the kind of recipe that it is told to refuse, and keeps what has finished."""

    def __init__(self, *, refused: str = "", outcome: str = "worse") -> None:
        self.refused, self.outcome = refused, outcome
        self.finished: dict[str, Json] = {}
        self.asked: list[str] = []

    def submit(self, request: Json) -> Json:
        assert request["dry_run"]
        kind = request["candidate"]["recipe"][0]["type"]
        self.asked.append(kind)
        if kind == self.refused:
            raise HemostatError(ErrorCode.INVALID_REQUEST, f"there is no step {kind}", pointer="/candidate/recipe/0")
        return {"seconds": 40.0}

    def finish(self, job_id: str, request: Json) -> None:
        report = copy.deepcopy(tasks_report(task("example", self.outcome, items=206)))
        report["request"] = {**request, "metadata": {}}
        self.finished[job_id] = report

    def jobs(self, **filters: Any) -> Json:
        assert (filters["kind"], filters["status"]) == ("tasks", "succeeded")
        return {"data": [{"id": name} for name in self.finished], "has_more": False, "last_id": None}

    def report(self, job_id: str) -> Json:
        return self.finished[job_id]


class Runs:
    """In place of `run_to_end`: finishes each job, or raises what it is told to at its turn."""

    def __init__(self, service: Service, raised: dict[int, BaseException] | None = None) -> None:
        self.service, self.raised, self.count = service, raised or {}, 0

    def __call__(self, client: Service, request: Json, console: Console) -> Json:
        number, self.count = self.count, self.count + 1
        if number in self.raised:
            raise self.raised[number]
        began = 1000.0 * (number + 1)
        self.service.finish(f"diag_{len(self.service.finished)}", request)
        # The first one takes a minute, the others half of it.
        return {
            "id": list(self.service.finished)[-1],
            "started_at": began,
            "finished_at": began + (60 if not number else 30),
        }


def steps(*recipes: str) -> list[Step]:
    return steps_of("tiny", recipes or RECIPES, None, 24)


def swept(
    monkeypatch: pytest.MonkeyPatch, service: Service, runs: Runs, asked: list[Step] | None = None, **options: bool
) -> tuple[Swept | BaseException, str]:
    """What came of it, and what was said."""
    monkeypatch.setattr(flips_sweep, "run_to_end", runs)
    stream = io.StringIO()
    try:
        found: Swept | BaseException = sweep(service, asked or steps(), Console(file=stream, width=200), **options)  # type: ignore[arg-type]
    except (HemostatError, KeyboardInterrupt) as error:
        found = error
    return found, stream.getvalue()


def test_a_recipe_that_is_refused_is_named_before_any_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(refused="prune.magnitude")
    runs = Runs(service)
    error, _ = swept(monkeypatch, service, runs)
    assert isinstance(error, HemostatError)
    assert error.detail == "prune.magnitude:sparsity=0.3: there is no step prune.magnitude"
    assert (error.pointer, runs.count, len(service.asked)) == ("/candidate/recipe/0", 0, 3)


def test_it_says_beforehand_how_long_it_takes_and_on_the_way_how_long_it_still_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service()
    found, said = swept(monkeypatch, service, Runs(service), steps(*RECIPES, "quantize.nf4"))
    assert isinstance(found, Swept)
    assert list(found.jobs) == [*RECIPES, "quantize.nf4"]
    assert said.startswith("4 runs, estimated at 2 min 40 s;")
    assert "2 of 4: quantize.rtn:bits=4\n" in said
    assert "3 of 4: prune.magnitude:sparsity=0.3 (about 1 min 00 s to go)" in said
    assert "4 of 4: quantize.nf4 (about 30.0 s to go)" in said
    assert said.count("of 206 answers flipped at a KL of") == 4


def test_what_was_broken_off_goes_on_with_what_has_not_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    left, said = swept(monkeypatch, service, Runs(service, {2: KeyboardInterrupt()}))
    assert isinstance(left, KeyboardInterrupt)
    assert "2 of 3 runs are finished and kept; the same command goes on with the others" in said
    runs = Runs(service)
    found, said = swept(monkeypatch, service, runs)
    assert isinstance(found, Swept)
    assert (runs.count, set(found.jobs)) == (1, set(RECIPES))
    assert "quantize.rtn:bits=8: run before, job diag_0; --again runs it anew" in said
    assert said.count("where the weights behind an alias or the content of a task's file have changed since") == 1
    assert "1 run, estimated at 40.0 s" in said
    _, said = swept(monkeypatch, service, runs)
    assert (runs.count, "estimated" in said) == (1, False)
    _, said = swept(monkeypatch, service, runs, again=True)
    assert runs.count == 4 and "by name" not in said


def test_jobs_of_other_tasks_texts_or_models_are_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    for number, (model, tasks, documents) in enumerate(
        ((("other"), None, 24), ("tiny", ["shipped:50"], 24), ("tiny", None, 20))
    ):
        (one,) = steps_of(model, RECIPES[:1], tasks, documents)
        service.finish(f"else_{number}", one.request)
    service.finish("old", {"kind": "tasks", "of": "a version that asked otherwise"})
    runs = Runs(service)
    swept(monkeypatch, service, runs, steps(RECIPES[0]))
    assert runs.count == 1


def test_a_recipe_that_fails_is_passed_over_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    found, said = swept(monkeypatch, service, Runs(service, {1: BROKEN}))
    assert isinstance(found, Swept)
    assert list(found.jobs) == [RECIPES[0], RECIPES[2]]
    assert "quantize.rtn:bits=4 failed: the engine ended (engine_failed)" in said
    assert found.told == [
        {"recipe": RECIPES[0], "job": "diag_0"},
        {"recipe": RECIPES[2], "job": "diag_1"},
        {"recipe": RECIPES[1], "error": "engine_failed"},
    ]


def test_where_all_fail_the_first_failure_is_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    runs = Runs(service, dict.fromkeys(range(3), BROKEN))
    assert swept(monkeypatch, service, runs)[0] is BROKEN
    assert runs.count == 3


def test_where_the_service_is_away_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    runs = Runs(service, {1: AWAY})
    assert swept(monkeypatch, service, runs)[0] is AWAY
    assert runs.count == 2


def test_where_the_reference_is_at_chance_the_other_recipes_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(outcome="at_chance")
    runs = Runs(service)
    error, _ = swept(monkeypatch, service, runs)
    assert isinstance(error, HemostatError)
    assert error.detail.startswith("nothing is learned from example: the unmodified model is at chance there")
    assert runs.count == 1


def test_a_recipe_that_is_given_twice_is_run_once() -> None:
    assert [step.written for step in steps("quantize.nf4", RECIPES[0], "quantize.nf4")] == ["quantize.nf4", RECIPES[0]]
