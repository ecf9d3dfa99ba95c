"""Treatments of a mitigate job in words that a recipe is written in."""

from app.kinds.mitigate.report import Treatment
from app.kinds.mitigate.treatments import described

RTN = {"type": "quantize.rtn", "bits": 3}
DYNAMIC = {"mixed": False, "extra_bits": 0.0, "half_group": False}


def told(name, knobs, *recipe):
    return described([Treatment(name=name, knobs=knobs)], recipe)


def scaled(**fields):
    return {"type": "quantize.dynamic"} | fields


def test_knobs_that_a_step_has_anyway_are_left_out():
    for name, knobs, words in (
        ("repair.lowrank", {"rank": 16, "iterations": 1}, "repair.lowrank rank 16"),
        ("repair.lowrank", {"rank": 16, "iterations": 2}, "repair.lowrank rank 16, 2 iterations"),
        ("repair.lowrank", {"rank": 16, "iterations": 1, "own_text": True}, "repair.lowrank rank 16, own text"),
        ("norm.tweak", {"steps": 20, "learning_rate": 1e-3}, "norm.tweak"),
        ("norm.tweak", {"steps": 60, "learning_rate": 1e-4}, "norm.tweak 60 steps, learning rate 0.0001"),
        ("calibration", {"version": 3}, "calibration, version 3"),
    ):
        assert told(name, knobs, RTN) == words


def test_bits_and_groups_are_those_of_the_treated_recipe():
    wide, narrow = scaled(bits=4.0, group_size=None), scaled(bits=4.0, group_size=128)
    for knobs, steps, words in (
        ({}, [scaled(bits=3.0)], " at 3 bits"),
        ({"half_group": True}, [scaled(bits=3.0, group_size=32)], " at 3 bits, groups of 32"),
        ({"mixed": True, "extra_bits": 0.5}, [scaled(bits=3.5, mixed=True)], " at 3.5 bits, mixed"),
        ({}, [scaled(bits=8.0, group_size=None)], " at 8 bits, per channel"),
        ({}, [scaled(bits=4.0, layers=[0]), scaled(bits=3.0, layers=[1])], " at 3 and 4 bits"),
        ({}, [wide, narrow, scaled(bits=4.0)], " at 4 bits, groups of 64 and 128, per channel"),
        ({}, [], ""),
        ({"mixed": True, "extra_bits": 0.5, "half_group": True}, [RTN], ", 0.5 more bits, mixed, half groups"),
    ):
        assert told("quantize.dynamic", DYNAMIC | knobs, *steps) == f"quantize.dynamic{words}"


def test_pruning_by_gradients_is_told_by_what_it_takes_away():
    for knobs, fields, words in (
        ({"budget": "gradient", "recovery_steps": 0}, {"sparsity": 0.5}, "at sparsity 0.5"),
        (
            {"budget": "uniform", "recovery_steps": 200},
            {"pattern": "2:4"},
            "at 2:4, uniform budget, 200 recovery steps",
        ),
    ):
        assert told("prune.gradient", knobs, {"type": "prune.gradient"} | fields) == f"prune.gradient {words}"


def test_treatments_come_one_after_the_other_and_none_is_the_candidate():
    both = [Treatment(name="protect", knobs={"layers": 1, "by": 1}), Treatment(name="norm.tweak", knobs={"steps": 60})]
    assert described(both, [RTN]) == "protect 1 layer, 1 bit more, then norm.tweak 60 steps"
    assert described([], [RTN]) == "the candidate as it is"
