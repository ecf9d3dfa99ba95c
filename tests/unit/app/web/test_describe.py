import pytest

from app.web import describe


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}, "4-bit RTN, group 64, asymmetric"),
        (
            {"type": "quantize.rtn", "bits": 8, "group_size": None, "symmetric": True},
            "8-bit RTN, per channel, symmetric",
        ),
        ({"type": "prune.magnitude", "sparsity": 0.5, "scope": "row"}, "magnitude pruning 50.0 % per row"),
        (
            {"type": "prune.magnitude", "sparsity": 0.125, "scope": "global"},
            "magnitude pruning 12.5 % over all weights",
        ),
        ({"type": "prune.magnitude", "pattern": "2:4", "sparsity": None}, "magnitude pruning 2:4"),
        (
            {"type": "quantize.rtn", "bits": 3, "layers": [0, 1, 2, 7], "modules": ["down_proj"]},
            "3-bit RTN, group 64, asymmetric (only layers 0–2, 7; down_proj)",
        ),
        ({"type": "lowrank.svd", "rank": 64, "seed": None}, "lowrank.svd rank 64"),
        ({}, "unknown step"),
    ],
)
def test_a_step_in_words(step, words):
    assert describe.step(step) == words


def test_steps_stand_in_the_order_in_which_they_were_applied():
    steps = [{"type": "prune.magnitude", "pattern": "2:4"}, {"type": "quantize.rtn", "bits": 4}]
    assert describe.recipe(steps) == "magnitude pruning 2:4, then 4-bit RTN, group 64, asymmetric"
    assert describe.recipe([]) == ""
