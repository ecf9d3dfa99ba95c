"""The settings of a surface: places, recipes of both orders, and refusals with their place."""

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.surface.plan import axes_of, cells_of, check_surface, zero_of
from app.kinds.surface.request import SurfaceRequest

PRUNE = {"type": "prune.magnitude", "sparsity": 0.2}
RTN = {"type": "quantize.rtn", "bits": 8}


def request(recipe=(PRUNE, RTN), knobs=None, **fields):
    knobs = knobs or [
        {"step": 0, "field": "sparsity", "values": [0.2, 0.5, 0.3]},
        {"step": 1, "field": "bits", "values": [3, 8]},
    ]
    return SurfaceRequest.model_validate(
        {
            "kind": "surface",
            "reference": {"model": "m"},
            "self_check": True,
            "candidate": {"model": "m", "recipe": list(recipe)},
            "knobs": knobs,
        }
        | fields
    )


def steps(cell):
    return [(step.type, getattr(step, "sparsity", None) or getattr(step, "bits", None)) for step in cell.recipe]


def accept(recipe):
    """Takes any."""


def test_values_go_from_the_mildest_on_whatever_their_order():
    first, second = axes_of(request())
    assert first.values == (None, 0.2, 0.3, 0.5)
    assert second.values == (None, 8, 3)
    assert [first.number(place) for place in range(4)] == [0.0, 0.2, 0.3, 0.5]
    assert [second.number(place) for place in range(3)] == [16.0, 8.0, 3.0]
    assert second.label(0) == "left out"
    assert second.label(2) == "3"


def test_ranks_fall_and_what_has_no_zero_stays_as_given():
    recipe = [{"type": "lowrank.svd", "rank": 8}, {"type": "norm.scale", "factor": 1.2}]
    knobs = [
        {"step": 0, "field": "rank", "values": [4, 16, 8]},
        {"step": 1, "field": "factor", "values": [1.2, 0.9, 1.1]},
    ]
    first, second = axes_of(request(recipe, knobs))
    assert first.values == (None, 16, 8, 4)
    assert first.number(0) is None
    assert second.values == (None, 1.2, 0.9, 1.1)


def test_a_smaller_rank_removes_of_a_low_rank_and_not_of_a_repair():
    recipe = [{"type": "lowrank.svd", "rank": 8}, {"type": "repair.lowrank", "rank": 8}]
    knobs = [{"step": step, "field": "rank", "values": [4, 16, 8]} for step in (0, 1)]
    removed, repaired = axes_of(request(recipe, knobs))
    assert repaired.values == removed.values == (None, 16, 8, 4)
    assert (removed.removes, repaired.removes) == (True, False)


def test_numbers_with_a_direction_stand_from_the_mildest_on():
    recipe = [{"type": "quantize.rtn", "bits": 4}, {"type": "context.yarn", "factor": 2}]
    knobs = [
        {"step": 0, "field": "group_size", "values": [64, 128, 32]},
        {"step": 1, "field": "factor", "values": [4, 2, 8]},
    ]
    first, second = axes_of(request(recipe, knobs))
    assert first.values == (None, 32, 64, 128)
    assert second.values == (None, 2, 4, 8)


@pytest.mark.parametrize(
    ("step", "field", "values", "mildest_first"),
    [
        # The whole row shares one scale: the widest group of all.
        ({"type": "quantize.rtn", "bits": 4}, "group_size", [None, 64, 32], (32, 64, None)),
        # Activations as they are, beyond 16 bits or at them.
        ({"type": "quantize.dynamic", "bits": 8}, "activation_bits", [4, None, 8], (None, 8, 4)),
        # No limit of time.
        ({"type": "repair.lowrank", "rank": 8}, "distill_s", [60.0, None, 600.0], (None, 600.0, 60.0)),
    ],
)
def test_null_stands_where_a_sweep_of_the_field_has_it(step, field, values, mildest_first):
    knobs = [{"step": 0, "field": "sparsity", "values": [0.2, 0.5]}, {"step": 1, "field": field, "values": values}]
    _, axis = axes_of(request([PRUNE, step | {field: values[1]}], knobs))
    assert axis.values == (None, *mildest_first)
    assert axis.label(0) == "left out" and axis.label(1 + mildest_first.index(None)) == "null"


def test_zero_is_the_recipe_without_the_step():
    cells = {(cell.first, cell.second): steps(cell) for cell in cells_of(request())}
    assert len(cells) == 12
    assert cells[0, 0] == []
    assert cells[2, 0] == [("prune.magnitude", 0.3)]
    assert cells[0, 1] == [("quantize.rtn", 8)]
    assert cells[3, 2] == [("prune.magnitude", 0.5), ("quantize.rtn", 3)]


def test_each_knob_alone_is_measured_first():
    places = [(cell.first, cell.second) for cell in cells_of(request())]
    assert all(min(place) == 0 for place in places[:6])
    assert all(min(place) > 0 for place in places[6:])


def test_the_other_order_exchanges_the_two_steps_and_no_others():
    recipe = [PRUNE, {"type": "norm.scale", "factor": 1.1}, RTN]
    knobs = [{"step": 0, "field": "sparsity", "values": [0.2, 0.5]}, {"step": 2, "field": "bits", "values": [8, 4]}]
    cells = cells_of(request(recipe, knobs, orders="both"))
    reversed_cells = [cell for cell in cells if cell.order == "reversed"]
    assert len(reversed_cells) == 4
    last = next(cell for cell in reversed_cells if (cell.first, cell.second) == (2, 2))
    assert [step.type for step in last.recipe] == ["quantize.rtn", "norm.scale", "prune.magnitude"]
    assert steps(last)[0] == ("quantize.rtn", 4)
    assert steps(last)[2] == ("prune.magnitude", 0.5)
    assert [step.type for step in cells[0].recipe] == ["norm.scale"], "what has no knob is never left out"


def test_two_knobs_of_one_step_begin_at_their_first_values():
    knobs = [{"step": 0, "field": "bits", "values": [3, 8]}, {"step": 0, "field": "group_size", "values": [32, 64]}]
    asked = request([RTN], knobs)
    assert zero_of(asked) == "first value"
    cells = cells_of(asked)
    assert len(cells) == 4
    corner = next(cell for cell in cells if (cell.first, cell.second) == (0, 0))
    assert (corner.recipe[0].bits, corner.recipe[0].group_size) == (8, 32)


def refused(asked, check=accept):
    with pytest.raises(HemostatError) as caught:
        check_surface(asked, check)
    return caught.value


def test_bad_surfaces_are_refused_with_their_place():
    same = [{"step": 1, "field": "bits", "values": [8, 4]}, {"step": 1, "field": "bits", "values": [3, 2]}]
    error = refused(request(knobs=same))
    assert error.pointer == "/knobs/1"
    assert "both knobs are bits of step 1" in error.detail
    one_step = [{"step": 1, "field": "bits", "values": [8, 4]}, {"step": 1, "field": "group_size", "values": [32, 64]}]
    assert refused(request(knobs=one_step, orders="both")).pointer == "/orders"
    many = [
        {"step": 0, "field": "sparsity", "values": [round(0.01 * index, 2) for index in range(1, 51)]},
        {"step": 1, "field": "bits", "values": [8, 6, 4, 3]},
    ]
    error = refused(request(knobs=many))
    assert "51 × 5 settings are 255 points; at most 200 are taken" in error.detail
    assert error.detail.endswith(": the step left out is one setting more than the 50 and 4 values given")
    one_step = [
        {"step": 1, "field": "bits", "values": [8, 7, 6, 5, 4, 3]},
        {"step": 1, "field": "group_size", "values": list(range(1, 41))},
    ]
    error = refused(request(knobs=one_step))
    assert error.detail == "6 × 40 settings are 240 points; at most 200 are taken", "nothing is left out"
    lacking = [{"step": 0, "field": "bits", "values": [8, 4]}, {"step": 1, "field": "bits", "values": [8, 4]}]
    assert refused(request(knobs=lacking)).code == ErrorCode.UNKNOWN_FIELD
    absent = [{"step": 5, "field": "bits", "values": [8, 4]}, {"step": 1, "field": "bits", "values": [8, 4]}]
    assert "none of number 5" in refused(request(knobs=absent)).detail
    outside = [{"step": 0, "field": "sparsity", "values": [0.2, 1.5]}, {"step": 1, "field": "bits", "values": [8, 4]}]
    assert "sparsity = 1.5 is not taken" in refused(request(knobs=outside)).detail


def test_a_setting_that_the_checkpoint_cannot_take_is_told_with_both_values():
    def check(recipe):
        if len(recipe) == 2 and (recipe[0].sparsity, recipe[1].bits) == (0.5, 8):
            raise HemostatError(ErrorCode.RECIPE_NOT_APPLICABLE, "no", pointer="/candidate/recipe/0")

    error = refused(request(), check)
    assert error.code == ErrorCode.RECIPE_NOT_APPLICABLE
    assert error.detail == "at sparsity 0.5 with bits 8: no"
    assert error.pointer == "/knobs"
    assert error.hint == "turn sparsity without 0.5 or bits without 8"

    def only_reversed(recipe):
        if len(recipe) == 2 and recipe[0].type == "quantize.rtn":
            raise HemostatError(ErrorCode.RECIPE_NOT_APPLICABLE, "packed before", pointer="/candidate/recipe/1")

    assert check_surface(request(), only_reversed) is None
    error = refused(request(orders="both"), only_reversed)
    assert error.pointer == "/orders"
    assert "steps exchanged: packed before" in error.detail
    assert error.hint == "ask for the order as given alone"


def test_two_values_of_one_step_that_do_not_go_together_are_both_named():
    recipe = [{"type": "norm.scale", "factor": 1.1, "shift": 0.1}]
    knobs = [{"step": 0, "field": "factor", "values": [1.1, 1.0]}, {"step": 0, "field": "shift", "values": [0.1, 0.0]}]
    error = refused(request(recipe, knobs))
    assert error.detail.startswith("at factor 1 with shift 0 the two knobs do not go together: give a factor")
    assert error.hint == "turn factor without 1 or shift without 0"
    assert error.pointer == "/knobs"


@pytest.mark.parametrize(
    ("contour", "level"),
    [({}, 0.05), ({"measure": "perplexity_ratio"}, 1.05), ({"measure": "perplexity", "level": 7.5}, 7.5)],
)
def test_the_chosen_loss(contour, level):
    assert request(contour=contour).level == level


@pytest.mark.parametrize(
    "contour", [{"measure": "perplexity"}, {"measure": "perplexity_ratio", "level": 0.9}, {"level": -1}]
)
def test_a_loss_that_is_none_is_refused(contour):
    with pytest.raises(ValueError, match="level"):
        request(contour=contour)
