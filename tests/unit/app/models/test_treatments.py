"""Treatments of a mitigate job in words."""

import pytest

from app.kinds.mitigate.report import Treatment
from app.kinds.mitigate.treatments import described


@pytest.mark.parametrize(
    ("name", "knobs", "words"),
    [
        ("repair.lowrank", {"rank": 16, "iterations": 1}, "repair.lowrank rank 16"),
        (
            "repair.lowrank",
            {"rank": 16, "iterations": 2, "own_text": True},
            "repair.lowrank rank 16, iterations 2, own text",
        ),
        ("norm.tweak", {"steps": 60, "learning_rate": 1e-4}, "norm.tweak steps 60, learning rate 0.0001"),
        (
            "quantize.dynamic",
            {"mixed": True, "extra_bits": 0.5, "half_group": False},
            "quantize.dynamic mixed, extra bits 0.5",
        ),
        ("protect", {"layers": 4, "by": 1}, "protect layers 4, by 1"),
    ],
)
def test_settings_that_a_step_has_anyway_are_left_out(name, knobs, words):
    assert described([Treatment(name=name, knobs=knobs)]) == words


def test_treatments_come_one_after_the_other_and_none_is_the_candidate():
    both = [Treatment(name="protect", knobs={"layers": 1}), Treatment(name="norm.tweak", knobs={"steps": 60})]
    assert described(both) == "protect layers 1, then norm.tweak steps 60"
    assert described([]) == "the candidate as it is"
