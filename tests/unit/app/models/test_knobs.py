"""Knobs: found, spaced, refused with the place of the fault, and turned."""

import json

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import Knob
from app.jobs.parsing import parse_submission
from app.kinds.registry import KINDS
from app.kinds.sweep.request import SweepRequest
from app.models.knobs import check_knobs, grid, lift, lift_knobs, recipe_at, told, without
from app.recipes.prune import PruneMagnitude
from app.recipes.quantize import QuantizeRtn

WANDA = {"type": "prune.wanda", "sparsity": 0.5}
AT = "/candidate/recipe/0"


def body(*steps, **more):
    recipe = list(steps)
    return {
        "kind": "sweep",
        "reference": {"model": "m"},
        "self_check": True,
        "candidate": {"model": "m", "recipe": recipe},
        **more,
    }


def refused(*steps, most=1, **more):
    with pytest.raises(HemostatError) as error:
        lift(body(*steps, **more), most=most)
    return error.value


def test_a_list_and_a_range_become_a_knob_and_the_recipe_its_first_value():
    listed = lift(body({"type": "quantize.rtn", "bits": {"sweep": [8, 4, 3]}}))
    assert listed["knobs"] == ({"step": 0, "field": "bits", "values": (8, 4, 3)},)
    assert listed["candidate"]["recipe"] == ({"type": "quantize.rtn", "bits": 8},)
    ranged = lift(body({"type": "prune.wanda", "sparsity": {"sweep": {"from": 0.1, "to": 0.7, "points": 4}}}))
    assert ranged["knobs"][0]["values"] == (0.1, 0.3, 0.5, 0.7), "no 0.30000000000000004"
    whole = lift(body({"type": "lowrank.svd", "rank": {"sweep": {"from": 64, "to": 8, "points": 5}}}))
    assert whole["knobs"][0]["values"] == (64, 50, 36, 22, 8)
    assert all(isinstance(value, int) for value in whole["knobs"][0]["values"])


def test_a_request_without_a_knob_is_left_as_it_is():
    asked = body(WANDA)
    assert lift(asked) is asked


def test_several_knobs_are_lifted_where_a_kind_takes_them():
    steps = (
        {"type": "prune.wanda", "sparsity": {"sweep": [0.2, 0.5]}},
        {"type": "quantize.rtn", "bits": {"sweep": [8, 4]}},
    )
    lifted = lift(body(*steps), most=2)
    knobs = [Knob.model_validate(knob) for knob in lifted["knobs"]]
    assert list(grid(knobs)) == [(0.2, 8), (0.2, 4), (0.5, 8), (0.5, 4)]


@pytest.mark.parametrize(
    ("step", "pointer", "code"),
    [
        ({"type": "quantize.rtn", "bits": {"sweep": [8]}}, "/bits/sweep", "invalid_request"),
        ({"type": "quantize.rtn", "bits": {"sweep": []}}, "/bits/sweep", "invalid_request"),
        ({"type": "quantize.rtn", "bits": {"sweep": 8}}, "/bits/sweep", "invalid_request"),
        ({"type": "quantize.rtn", "bits": {"sweep": [8, 1]}}, "/bits/sweep/1", "invalid_request"),
        ({"type": "quantize.rtn", "bits": {"sweep": [8, 4.5]}}, "/bits/sweep/1", "invalid_request"),
        ({"type": "quantize.rtn", "bits": {"sweep": [8, 4, 8]}}, "/bits/sweep/2", "invalid_request"),
        ({"type": "quantize.rtn", "bits": {"sweep": [8, 4], "x": 1}}, "/bits/x", "invalid_request"),
        (
            {"type": "quantize.rtn", "bits": {"sweep": {"from": 8, "to": 2, "points": 9}}},
            "/bits/sweep/points",
            "invalid_request",
        ),
        (
            {"type": "quantize.rtn", "bits": {"sweep": {"from": 8.5, "to": 2, "points": 3}}},
            "/bits/sweep/from",
            "invalid_request",
        ),
        (
            {"type": "prune.wanda", "sparsity": {"sweep": {"from": 0.1, "to": 0.1, "points": 3}}},
            "/sparsity/sweep/to",
            "invalid_request",
        ),
        (
            {"type": "prune.wanda", "sparsity": {"sweep": {"from": 0.1, "to": 0.5}}},
            "/sparsity/sweep/points",
            "invalid_request",
        ),
        (
            {"type": "prune.wanda", "sparsity": {"sweep": {"from": 0.1, "to": 0.5, "points": 1}}},
            "/sparsity/sweep/points",
            "invalid_request",
        ),
        (
            {"type": "prune.wanda", "sparsity": {"sweep": {"from": 0.5, "to": 1.5, "points": 3}}},
            "/sparsity/sweep/1",
            "invalid_request",
        ),
        ({"type": "quantize.rtn", "bits": 4, "rank": {"sweep": [8, 16]}}, "/rank", "unknown_field"),
        ({"type": "prune.wanda", "pattern": {"sweep": ["2:4", "4:4"]}}, "/pattern/sweep/1", "invalid_request"),
    ],
)
def test_what_is_wrong_with_a_knob_is_told_with_its_place(step, pointer, code):
    error = refused(step)
    assert (error.pointer, error.code.value) == (AT + pointer, code)


@pytest.mark.parametrize(
    ("step", "detail", "hint"),
    [
        (
            {"type": "quantize.rtn", "bits": {"sweep": {"from": 2, "to": 20, "points": 10}}},
            "bits = 10 is not taken (value 5 of 10 in the range): input should be less than or equal to 8",
            "let the range leave 10 out; of its values 2, 4, 6, 8 are taken",
        ),
        (
            {"type": "prune.wanda", "sparsity": {"sweep": {"from": 0.1, "to": 1.2, "points": 12}}},
            "sparsity = 1 is not taken (value 10 of 12 in the range): input should be less than 1",
            "let the range leave 1 out; of its values 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9 are taken",
        ),
        (
            {"type": "quantize.rtn", "bits": {"sweep": [8, 4, 99]}},
            "bits = 99 is not taken: input should be less than or equal to 8",
            "leave 99 out, or give a value of bits at least 2 and at most 8",
        ),
        (
            {"type": "quantize.rtn", "bits": {"sweep": [8, 99]}},
            "bits = 99 is not taken: input should be less than or equal to 8",
            "give values of bits at least 2 and at most 8",
        ),
        (
            {"type": "prune.magnitude", "pattern": "2:4", "sparsity": {"sweep": [0.1, 0.2]}},
            "sparsity = 0.1 is not taken: give either sparsity or pattern",
            "leave pattern out: beside it the step takes no sparsity",
        ),
        (
            {"type": "lowrank.svd", "rank": 8, "ratio": {"sweep": {"from": 0.1, "to": 0.5, "points": 3}}},
            "ratio = 0.1 is not taken (value 1 of 3 in the range): give either rank or ratio",
            "leave rank out: beside it the step takes no ratio",
        ),
        (
            {"type": "prune.magnitude", "pattern": "2:4", "sparsity": {"sweep": [1.5, 2]}},
            "sparsity = 1.5 is not taken: input should be less than 1",
            "give values of sparsity above 0 and below 1",
        ),
        (
            {"type": "quantize.rtn", "bits": {"sweep": [8, 4, 8]}},
            "bits = 8 is given twice, as values 1 and 3 of 3",
            "give each value once",
        ),
        (
            {"type": "context.linear", "factor": {"sweep": [1.5, 2, 2.0]}},
            "factor = 2 is given twice, as values 2 and 3 of 3",
            "give each value once",
        ),
        (
            {"type": "prune.wanda", "sparsity": {"sweep": {"from": 0.1, "to": 0.1 + 1e-13, "points": 3}}},
            "sparsity = 0.1 comes twice, as values 1 and 2 of 3",
            "ask for fewer points, or set the ends further apart",
        ),
    ],
)
def test_a_refused_value_is_named_with_its_field_and_what_to_do(step, detail, hint):
    error = refused(step)
    assert (error.detail, error.hint) == (detail, hint)


def test_a_knob_beside_what_takes_its_place_is_told_what_to_leave_out():
    """The step has every field, most of them null or at their default."""
    recipe = (PruneMagnitude(type="prune.magnitude", pattern="2:4"),)
    with pytest.raises(HemostatError) as error:
        check_knobs(recipe, [Knob(step=0, field="sparsity", values=(0.1, 0.2))], lambda _: None)
    assert error.value.hint == "leave pattern out: beside it the step takes no sparsity"


def test_a_second_knob_is_refused_and_the_kind_that_takes_it_named():
    steps = (
        {"type": "prune.wanda", "sparsity": {"sweep": [0.2, 0.5]}},
        {"type": "quantize.rtn", "bits": {"sweep": [8, 4]}},
    )
    with pytest.raises(HemostatError) as error:
        parse_submission(json.dumps(body(*steps)).encode())
    assert error.value.pointer == "/candidate/recipe/1/bits"
    assert "surface" in error.value.hint


def test_a_kind_that_turns_no_knob_names_the_one_that_does():
    body = {"kind": "compare", "candidate": {"recipe": [{"type": "quantize.rtn", "bits": {"sweep": [8, 4]}}]}}
    with pytest.raises(HemostatError) as refused:
        lift_knobs(body, KINDS[body["kind"]])
    assert refused.value.pointer == "/candidate/recipe/0/bits"
    assert "sweep" in refused.value.hint


def test_a_surface_of_one_knob_is_told_what_it_is():
    body = {"kind": "surface", "candidate": {"recipe": [{"type": "quantize.rtn", "bits": {"sweep": [8, 4]}}]}}
    with pytest.raises(HemostatError) as refused:
        lift_knobs(body, KINDS[body["kind"]])
    assert refused.value.pointer == "/candidate/recipe/0/bits"
    assert refused.value.detail == "one value of the recipe is swept; a surface turns two knobs"
    assert "kind sweep" in refused.value.hint


BITS = {"step": 0, "field": "bits", "values": [8, 4]}


@pytest.mark.parametrize(
    ("changes", "detail", "hint"),
    [
        ({}, "a sweep turns one knob, and none is given", "in place of one value of the candidate's recipe write"),
        ({"knobs": []}, "a sweep turns one knob, and none is given", '{"sweep": [0.1, 0.2]}'),
        ({"knobs": [BITS, BITS]}, "a sweep turns one knob, and two knobs are given", "send it as kind surface"),
        ({"kind": "surface"}, "a surface turns two knobs, and none is given", "in place of two values"),
        (
            {"kind": "surface", "knobs": [BITS]},
            "a surface turns two knobs, and one knob is given",
            "send it as kind sweep",
        ),
        ({"kind": "surface", "knobs": [BITS] * 3}, "a surface turns two knobs, and 3 knobs are given", "one value"),
    ],
)
def test_another_number_of_knobs_than_the_kind_turns_is_refused_in_words(changes, detail, hint):
    with pytest.raises(HemostatError) as error:
        parse_submission(json.dumps(body({"type": "quantize.rtn", "bits": 8}) | changes).encode())
    assert (error.value.pointer, error.value.detail) == ("/knobs", detail)
    assert hint in error.value.hint


def test_both_forms_are_the_same_request():
    short = parse_submission(json.dumps(body({"type": "prune.wanda", "sparsity": {"sweep": [0.1, 0.5]}})).encode())
    step = {"type": "prune.wanda", "sparsity": 0.1}
    long = body(step, knobs=[{"step": 0, "field": "sparsity", "values": [0.1, 0.5]}])
    assert short == parse_submission(json.dumps(long).encode())
    assert SweepRequest.model_validate_json(
        SweepRequest.model_validate(short.model_dump(exclude={"dry_run"})).model_dump_json(), strict=True
    )


def test_turning_makes_the_recipe_and_leaves_the_rest():
    request = SweepRequest.model_validate(lift(body(WANDA, {"type": "quantize.rtn", "bits": {"sweep": [8, 4]}})))
    turned = recipe_at(request.candidate.recipe, request.knobs, [3])
    assert isinstance(turned[1], QuantizeRtn) and turned[1].bits == 3
    assert turned[0] == request.candidate.recipe[0]
    assert without(turned, [0]) == (turned[1],)


def test_every_value_is_checked_against_the_checkpoint():
    request = SweepRequest.model_validate(lift(body({"type": "lowrank.svd", "rank": {"sweep": [8, 600]}})))

    def check(recipe):
        if recipe[0].rank > 576:
            raise HemostatError(ErrorCode.RECIPE_NOT_APPLICABLE, "too large", pointer="/candidate/recipe/0/rank")

    with pytest.raises(HemostatError) as error:
        check_knobs(request.candidate.recipe, request.knobs, check)
    assert error.value.pointer == f"{AT}/rank/sweep/1"
    assert error.value.detail == "at rank = 600: too large"
    assert error.value.hint == "sweep rank without 600"


@pytest.mark.parametrize(
    ("knob", "pointer"),
    [
        ({"step": 3, "field": "bits", "values": [8, 4]}, "/knobs/0/step"),
        ({"step": 0, "field": "rank", "values": [8, 4]}, "/knobs/0/field"),
        ({"step": 0, "field": "sparsity", "values": [0.5, 2.0]}, f"{AT}/sparsity/sweep/1"),
    ],
)
def test_a_knob_that_does_not_fit_the_recipe_is_refused(knob, pointer):
    recipe = SweepRequest.model_validate(body(WANDA, knobs=[knob])).candidate.recipe
    with pytest.raises(HemostatError) as error:
        check_knobs(recipe, [Knob.model_validate(knob)], lambda _: None)
    assert error.value.pointer == pointer


def test_a_step_that_there_is_not_is_told_with_how_many_there_are():
    knob = {"step": 3, "field": "sparsity", "values": [0.1, 0.2]}
    for steps, said in (([WANDA], "1 step"), ([WANDA, WANDA], "2 steps")):
        recipe = SweepRequest.model_validate(body(*steps, knobs=[knob])).candidate.recipe
        with pytest.raises(HemostatError, match=f"the recipe has {said}, and none of number 3"):
            check_knobs(recipe, [Knob.model_validate(knob)], lambda _: None)


def test_values_in_words():
    assert [told(value) for value in (0.5, 8, "2:4", [0, 1], None, True)] == ["0.5", "8", "2:4", "0, 1", "null", "true"]
