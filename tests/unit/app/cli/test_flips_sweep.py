"""The steps of a sweep for flips; the sweep itself runs in the integration tests."""

from app.cli.flips_sweep import steps_of


def test_a_recipe_that_is_given_twice_is_run_once():
    asked = ["quantize.nf4", "quantize.rtn:bits=8", "quantize.nf4"]
    assert [step.written for step in steps_of("tiny", asked, None, 24)] == ["quantize.nf4", "quantize.rtn:bits=8"]
