"""The settings of a surface: places, recipes of both orders, and refusals with their place."""

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.surface.plan import axes_of, cells_of, check_surface
from app.kinds.surface.request import SurfaceRequest

PRUNE = {"type": "prune.magnitude", "sparsity": 0.2}
RTN = {"type": "quantize.rtn", "bits": 8}
KNOBS = ((0, "sparsity", [0.2, 0.5, 0.3]), (1, "bits", [3, 8]))


def request(recipe=(PRUNE, RTN), knobs=KNOBS, **fields):
    body = {
        "kind": "surface",
        "reference": {"model": "m"},
        "self_check": True,
        "candidate": {"model": "m", "recipe": list(recipe)},
        "knobs": [{"step": step, "field": field, "values": values} for step, field, values in knobs],
    }
    return SurfaceRequest.model_validate(body | fields)


def steps(cell):
    return [(step.type, getattr(step, "sparsity", None) or getattr(step, "bits", None)) for step in cell.recipe]


def test_values_go_from_the_mildest_on_whatever_their_order():
    first, second = axes_of(request())
    assert first.values == (None, 0.2, 0.3, 0.5)
    assert second.values == (None, 8, 3)
    assert [first.number(place) for place in range(4)] == [0.0, 0.2, 0.3, 0.5]
    assert [second.number(place) for place in range(3)] == [16.0, 8.0, 3.0]
    assert (second.label(0), second.label(2)) == ("left out", "3")


def test_ranks_fall_and_what_has_no_zero_stays_as_given():
    recipe = [{"type": "lowrank.svd", "rank": 8}, {"type": "norm.scale", "factor": 1.2}]
    first, second = axes_of(request(recipe, [(0, "rank", [4, 16, 8]), (1, "factor", [1.2, 0.9, 1.1])]))
    assert first.values == (None, 16, 8, 4)
    assert first.number(0) is None
    assert second.values == (None, 1.2, 0.9, 1.1)


@pytest.mark.parametrize(
    ("step", "field", "values", "mildest_first"),
    [
        # The whole row shares one scale: the widest group of all.
        ({"type": "quantize.rtn", "bits": 4}, "group_size", [None, 64, 32], (32, 64, None)),
        # Activations as they are, beyond 16 bits or at them.
        ({"type": "quantize.dynamic", "bits": 8}, "activation_bits", [4, None, 8], (None, 8, 4)),
        # No limit of time.
        ({"type": "repair.lowrank", "rank": 8}, "distill_s", [60.0, None, 600.0], (None, 600.0, 60.0)),
        ({"type": "context.yarn"}, "factor", [4, 2, 8], (2, 4, 8)),
    ],
)
def test_values_and_null_are_in_the_order_of_a_sweep_of_the_field(step, field, values, mildest_first):
    knobs = [(0, "sparsity", [0.2, 0.5]), (1, field, values)]
    _, axis = axes_of(request([PRUNE, step | {field: values[1]}], knobs))
    assert axis.values == (None, *mildest_first)
    assert axis.label(0) == "left out"
    assert None not in mildest_first or axis.label(1 + mildest_first.index(None)) == "null"


def test_zero_is_the_recipe_without_the_step_and_each_knob_alone_is_measured_first():
    cells = {(cell.first, cell.second): steps(cell) for cell in cells_of(request())}
    assert len(cells) == 12
    assert cells[0, 0] == []
    assert cells[2, 0] == [("prune.magnitude", 0.3)]
    assert cells[0, 1] == [("quantize.rtn", 8)]
    assert cells[3, 2] == [("prune.magnitude", 0.5), ("quantize.rtn", 3)]
    assert [min(place) > 0 for place in cells] == [False] * 6 + [True] * 6


def test_the_other_order_exchanges_the_two_steps_and_no_others():
    recipe = [PRUNE, {"type": "norm.scale", "factor": 1.1}, RTN]
    cells = cells_of(request(recipe, [(0, "sparsity", [0.2, 0.5]), (2, "bits", [8, 4])], orders="both"))
    exchanged = {(cell.first, cell.second): cell for cell in cells if cell.order == "reversed"}
    assert len(exchanged) == 4
    first, middle, last = exchanged[2, 2].recipe
    assert (first.bits, middle.type, last.sparsity) == (4, "norm.scale", 0.5)
    assert [step.type for step in cells[0].recipe] == ["norm.scale"], "what has no knob is never left out"


def refused(asked, check=lambda recipe: None):
    with pytest.raises(HemostatError) as caught:
        check_surface(asked, check)
    return caught.value


def test_bad_surfaces_are_refused_with_their_place():
    def error(*knobs, **fields):
        return refused(request(knobs=knobs, **fields))

    assert error((1, "bits", [8, 4]), (1, "bits", [3, 2])).pointer == "/knobs/1"
    assert error((1, "bits", [8, 4]), (1, "group_size", [32, 64]), orders="both").pointer == "/orders"
    fifty = [round(0.01 * index, 2) for index in range(1, 51)]
    assert "51 × 5 settings are 255 points" in error((0, "sparsity", fifty), (1, "bits", [8, 6, 4, 3])).detail
    forty = (1, "group_size", list(range(1, 41)))
    detail = error((1, "bits", [8, 7, 6, 5, 4, 3]), forty).detail
    assert detail.startswith("6 × 40 settings are 240 points"), "nothing is left out"
    bits = (1, "bits", [8, 4])
    assert error((0, "bits", [8, 4]), bits).code == ErrorCode.UNKNOWN_FIELD
    assert "none of number 5" in error((5, "bits", [8, 4]), bits).detail
    assert "sparsity = 1.5 is not taken" in error((0, "sparsity", [0.2, 1.5]), bits).detail


def test_a_setting_that_the_checkpoint_cannot_take_is_told_with_both_values():
    def refuse(which, pointer):
        def check(recipe):
            if len(recipe) == 2 and which(recipe):
                raise HemostatError(ErrorCode.RECIPE_NOT_APPLICABLE, "no", pointer=pointer)

        return check

    both = refuse(lambda recipe: (recipe[0].sparsity, recipe[1].bits) == (0.5, 8), "/candidate/recipe/0")
    error = refused(request(), both)
    assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/knobs")
    assert error.detail == "at sparsity 0.5 with bits 8: no"
    assert error.hint == "turn sparsity without 0.5 or bits without 8"
    exchanged = refuse(lambda recipe: recipe[0].type == "quantize.rtn", "/candidate/recipe/1")
    assert check_surface(request(), exchanged) is None
    assert refused(request(orders="both"), exchanged).pointer == "/orders"
