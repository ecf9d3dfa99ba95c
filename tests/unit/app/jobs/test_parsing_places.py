"""Where a fault is: tasks, recipes, knobs and decoders are told apart by tags, which are no part of a place."""

from typing import Any

import pytest

from app.contracts.errors import ErrorCode
from app.problems import RequestError
from tests.support.submissions import refused

Json = dict[str, Any]
TASKS: list[Json] = [{"source": "file", "format": "arc", "path": "arc.jsonl"}, {"source": "shipped"}]


def tasks(**fields):
    base = {
        "kind": "tasks",
        "reference": {"model": "m"},
        "self_check": True,
        "candidate": {"model": "m"},
        "tasks": TASKS,
    }
    return base | fields


def recipe(*steps):
    return {"model": "m", "recipe": list(steps)}


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ([{"source": "shipped"}, {}], "/tasks/1/source", "The field 'source' is missing."),
        ([{"source": "file", "format": "arc"}], "/tasks/0/path", "The field 'path' is missing."),
        ([TASKS[0] | {"itms": 3}], "/tasks/0/itms", "There is no field 'itms'; did you mean 'items'?"),
        ([TASKS[0] | {"shots": 3}], "/tasks/0", "Shots and examples go together"),
        (["shipped"], "/tasks/0", "`tasks[0]` is a text, not an object."),
        ([], "/tasks", "`tasks`: the list should have at least 1 item"),
    ],
)
def test_a_fault_of_the_tasks_is_told_at_its_own_place(given, pointer, detail):
    error = refused(tasks(tasks=given))
    assert error.pointer == pointer
    assert error.detail.startswith(detail)


def of_kind(kind, **fields):
    return {
        "kind": kind,
        "reference": {"model": "m"},
        "candidate": recipe({"type": "quantize.rtn", "bits": 4}),
    } | fields


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (
            of_kind("sweep", knobs=[{"step": "x", "field": "bits", "values": [4]}], window=0),
            ["/window", "/knobs/0/step", "/knobs/0/values"],
        ),
        (
            of_kind("surface", knobs=[{"step": 0, "field": "bits", "values": [4, 5]}, {"stp": 1}]),
            ["/knobs/1/stp", "/knobs/1/field", "/knobs/1/values"],
        ),
        (
            of_kind("trajectory", decoders=[{"name": "temperature", "temperature": -1}, {"name": "top_p", "pp": 1}]),
            ["/decoders/1/pp", "/decoders/0/temperature"],
        ),
        (of_kind("trajectory", decoders=[{"name": "temprature"}, {}]), ["/decoders/0/name", "/decoders/1/name"]),
        (of_kind("trajectory", shapings=[{"name": "temperature", "temperature": -1}]), ["/shapings/0/temperature"]),
        (
            of_kind("trajectory", candidates=[{"modl": "m", "recipe": [{"type": "quantize.rtn"}, {"type": "prune"}]}]),
            ["/candidates/0/modl", "/candidates/0/recipe/1/type", "/candidates/0/recipe/0/bits"],
        ),
    ],
)
def test_faults_in_the_lists_of_a_request_are_told_at_their_own_places(body, pointers):
    error = refused(body)
    assert isinstance(error, RequestError)
    assert [part.pointer for part in error.errors] == pointers


def test_the_source_of_a_steps_calibration_is_no_recipe_type():
    step = {"type": "quantize.gptq", "bits": 4, "calibration": {"source": "nosuch"}}
    error = refused(of_kind("compare", candidate=recipe(step)))
    assert (error.code, error.pointer) == (ErrorCode.INVALID_REQUEST, "/candidate/recipe/0/calibration/source")
    assert error.detail == "There is no text source 'nosuch'."
    assert error.hint == "valid: file, hub, inline, self, shipped"


def test_what_is_wrong_with_a_task_as_a_whole_leads_to_the_page_about_tasks():
    error = refused(tasks(tasks=[TASKS[0] | {"shots": 3}]))
    assert (error.pointer, error.hint) == ("/tasks/0", "/openapi.json lists the fields of a task.")
    error = refused(tasks(tasks=[TASKS[1], TASKS[1]]))
    assert error.detail == "Two tasks are called example: give one of them another name."
    assert (error.pointer, error.hint) == ("/tasks", "/openapi.json lists the fields of a task.")
    twice = [{"source": "file", "format": "arc", "path": "a", "name": "tasks"}] * 2
    assert refused(tasks(tasks=twice)).pointer == "/tasks"
