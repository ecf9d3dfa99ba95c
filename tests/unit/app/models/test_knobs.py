"""Knobs: found, spaced, refused with the place of the fault, and turned."""

import json

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import Knob
from app.jobs.parsing import parse_submission
from app.kinds.registry import KINDS
from app.kinds.sweep.request import SweepRequest
from app.models.knobs import check_knobs, grid, lift, lift_knobs

WANDA = {"type": "prune.wanda", "sparsity": 0.5}
AT = "/candidate/recipe/0"
TWO = ({"type": "prune.wanda", "sparsity": {"sweep": [0.2, 0.5]}}, {"type": "quantize.rtn", "bits": {"sweep": [8, 4]}})


def body(*steps, **more):
    candidate = {"model": "m", "recipe": list(steps)}
    return {"kind": "sweep", "reference": {"model": "m"}, "self_check": True, "candidate": candidate, **more}


def sent(*steps, **more):
    return parse_submission(json.dumps(body(*steps, **more)).encode())


def refused(call, *given, **more):
    with pytest.raises(HemostatError) as error:
        call(*given, **more)
    return error.value


def swept(kind, field, values, **more):
    return {"type": kind, field: {"sweep": values}, **more}


def between(low, high, points):
    return {"from": low, "to": high, "points": points}


def test_a_list_and_a_range_become_a_knob_and_the_recipe_its_first_value():
    listed = lift(body(swept("quantize.rtn", "bits", [8, 4, 3])))
    assert listed["knobs"] == ({"step": 0, "field": "bits", "values": (8, 4, 3)},)
    assert listed["candidate"]["recipe"] == ({"type": "quantize.rtn", "bits": 8},)
    ranged = lift(body(swept("prune.wanda", "sparsity", between(0.1, 0.7, 4))))
    assert ranged["knobs"][0]["values"] == (0.1, 0.3, 0.5, 0.7), "no 0.30000000000000004"
    whole = lift(body(swept("lowrank.svd", "rank", between(64, 8, 5))))
    assert whole["knobs"][0]["values"] == (64, 50, 36, 22, 8)
    assert all(isinstance(value, int) for value in whole["knobs"][0]["values"])
    plain = body(WANDA)
    assert lift(plain) is plain


def test_several_knobs_are_lifted_if_a_kind_takes_them():
    knobs = [Knob.model_validate(knob) for knob in lift(body(*TWO), most=2)["knobs"]]
    assert list(grid(knobs)) == [(0.2, 8), (0.2, 4), (0.5, 8), (0.5, 4)]


# The step and the place of its fault.
FAULTS = [
    (swept("quantize.rtn", "bits", [8]), "/bits/sweep"),
    (swept("quantize.rtn", "bits", 8), "/bits/sweep"),
    (swept("quantize.rtn", "bits", [8, 1]), "/bits/sweep/1"),
    (swept("quantize.rtn", "bits", [8, 4.5]), "/bits/sweep/1"),
    (swept("quantize.rtn", "bits", [8, 4, 8]), "/bits/sweep/2"),
    ({"type": "quantize.rtn", "bits": {"sweep": [8, 4], "x": 1}}, "/bits/x"),
    (swept("quantize.rtn", "bits", between(8, 2, 9)), "/bits/sweep/points"),
    (swept("quantize.rtn", "bits", between(8.5, 2, 3)), "/bits/sweep/from"),
    (swept("prune.wanda", "sparsity", between(0.1, 0.1, 3)), "/sparsity/sweep/to"),
    (swept("prune.wanda", "sparsity", {"from": 0.1, "to": 0.5}), "/sparsity/sweep/points"),
    (swept("prune.wanda", "sparsity", between(0.1, 0.5, 1)), "/sparsity/sweep/points"),
    (swept("prune.wanda", "sparsity", between(0.5, 1.5, 3)), "/sparsity/sweep/1"),
    (swept("prune.wanda", "sparsity", between(0.1, 0.1 + 1e-13, 3)), "/sparsity/sweep/1"),
    (swept("prune.wanda", "pattern", ["2:4", "4:4"]), "/pattern/sweep/1"),
    (swept("decode.temperature", "temperature", [0.5, float("nan")]), "/temperature/sweep/1"),
    (swept("context.linear", "factor", [1.5, 2, 2.0]), "/factor/sweep/2"),
    (swept("lowrank.svd", "ratio", between(0.1, 0.5, 3), rank=8), "/ratio/sweep/0"),
]


def test_what_is_wrong_with_a_knob_is_told_with_its_place():
    wrong = []
    for step, pointer in FAULTS:
        error = refused(lift, body(step))
        if (error.code, error.pointer) != (ErrorCode.INVALID_REQUEST, AT + pointer) or not error.hint:
            wrong.append((step, error.pointer, error.hint))
    assert wrong == []
    unknown = refused(lift, body({"type": "quantize.rtn", "bits": 4, "rank": {"sweep": [8, 16]}}))
    assert (unknown.code, unknown.pointer) == (ErrorCode.UNKNOWN_FIELD, f"{AT}/rank")


def test_another_number_of_knobs_than_the_kind_turns_is_refused_and_the_kind_that_turns_so_many_named():
    second = refused(sent, *TWO)
    assert second.pointer == "/candidate/recipe/1/bits"
    assert "surface" in second.hint
    for kind, other in (("compare", "sweep"), ("surface", "kind sweep")):
        error = refused(lift_knobs, {"kind": kind, "candidate": {"recipe": [TWO[1]]}}, KINDS[kind])
        assert error.pointer == f"{AT}/bits"
        assert other in error.hint
    bits = {"step": 0, "field": "bits", "values": [8, 4]}
    for changes, hint in (
        ({}, "write"),
        ({"knobs": []}, "write"),
        ({"knobs": [bits, bits]}, "kind surface"),
        ({"kind": "surface"}, "write"),
        ({"kind": "surface", "knobs": [bits]}, "kind sweep"),
        ({"kind": "surface", "knobs": [bits] * 3}, ""),
    ):
        error = refused(sent, {"type": "quantize.rtn", "bits": 8}, **changes)
        assert error.pointer == "/knobs"
        assert hint in error.hint


def test_both_forms_are_the_same_request():
    short = sent(swept("prune.wanda", "sparsity", [0.1, 0.5]))
    step = {"type": "prune.wanda", "sparsity": 0.1}
    assert short == sent(step, knobs=[{"step": 0, "field": "sparsity", "values": [0.1, 0.5]}])
    stored = SweepRequest.model_validate(short.model_dump(exclude={"dry_run"})).model_dump_json()
    assert SweepRequest.model_validate_json(stored, strict=True)


def test_every_value_is_checked_against_the_checkpoint():
    request = SweepRequest.model_validate(lift(body(swept("lowrank.svd", "rank", [8, 600]))))

    def check(recipe):
        if recipe[0].rank > 576:
            raise HemostatError(ErrorCode.RECIPE_NOT_APPLICABLE, "too large", pointer=f"{AT}/rank")

    error = refused(check_knobs, request.candidate.recipe, request.knobs, check)
    assert error.pointer == f"{AT}/rank/sweep/1"
    assert error.detail == "at rank = 600: too large"
    assert error.hint == "sweep rank without 600"


def test_a_knob_that_does_not_fit_the_recipe_is_refused():
    for knob, pointer in (
        ({"step": 3, "field": "bits", "values": [8, 4]}, "/knobs/0/step"),
        ({"step": 0, "field": "rank", "values": [8, 4]}, "/knobs/0/field"),
        ({"step": 0, "field": "sparsity", "values": [0.5, 2.0]}, f"{AT}/sparsity/sweep/1"),
    ):
        recipe = SweepRequest.model_validate(body(WANDA, knobs=[knob])).candidate.recipe
        assert refused(check_knobs, recipe, [Knob.model_validate(knob)], lambda _: None).pointer == pointer
