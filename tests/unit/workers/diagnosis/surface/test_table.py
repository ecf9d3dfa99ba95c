"""What a table makes of its points: where between two settings a limit may lie, and what exchanging the steps does."""

from dataclasses import replace

import pytest

from tests.support.surface_reports import surface_request, surface_table
from workers.diagnosis.surface.report import _point


def with_records(made, change):
    """The table with each record as `change` of its place and itself has it."""
    return replace(made, records=[change(index, record) for index, record in enumerate(made.records)])


def with_bytes(made, sizes, otherwise):
    """The bytes of settings, by their place in the table or (first, second, order)."""

    def change(index, record):
        cell = made.cells[index]
        return record.model_copy(update={"sparse_bytes": sizes.get((cell.first, cell.second, cell.order), otherwise)})

    return with_records(made, change)


def limits_of_first(field, values):
    """Limits of a knob that does what bits do, the other one left at its mildest."""
    drawn = surface_table(surface_request(sparsities=(0.1, 0.2, 0.3), bits=(8, 6, 4)))
    by_place = {(cell.first, cell.second): record for cell, record in zip(drawn.cells, drawn.records, strict=True)}
    request = surface_request(
        candidate={"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 8, "group_size": 32}]},
        knobs=[
            {"step": 0, "field": field, "values": list(values)},
            {"step": 0, "field": "bits" if field == "group_size" else "group_size", "values": [8, 6, 4]},
        ],
        contour={"measure": "kl", "level": 0.1},
    )
    made = replace(drawn, request=request)
    cells = [cell for cell in drawn.cells if cell.first < 3 and cell.second < 3]
    made = replace(made, cells=cells, records=[by_place[0, cell.first + 1] for cell in cells])
    return next(one for one in made.contour().limits if one.knob == "first")


def test_a_limit_lies_no_earlier_than_a_straight_line_only_where_the_knob_removes_a_share():
    bits, groups = limits_of_first("bits", (8, 6, 4)), limits_of_first("group_size", (32, 64, 128))
    assert bits.place == groups.place and 1 < bits.place < 2
    assert 5 < bits.ci[0] < 6 and bits.ci[1] == 4
    assert groups.ci == (64, 128)
    assert limits_of_first("group_size", (32, 64, None)).ci == (1, 2), "places, where a value is no number"


def limits_of_rank(level):
    """Limit of a rank in a step of its own, left out at place 0, that does what sparsity does."""
    drawn = surface_table(surface_request(sparsities=(0.3, 0.5, 0.7), bits=(8, 4)))
    request = surface_request(
        candidate={
            "model": "smollm2-135m",
            "recipe": [{"type": "lowrank.svd", "rank": 256}, {"type": "quantize.rtn", "bits": 8}],
        },
        knobs=[{"step": 0, "field": "rank", "values": [256, 128, 64]}, {"step": 1, "field": "bits", "values": [8, 4]}],
        contour={"measure": "kl", "level": level},
    )
    return next(one for one in replace(drawn, request=request).contour().limits if one.knob == "first")


def test_a_straight_line_bounds_the_limit_of_a_rank_between_two_ranks_alone():
    between, first = limits_of_rank(0.2), limits_of_rank(0.005)
    assert 2 < between.place < 3 and 64 < between.value < 128
    assert 2 < between.ci[0] < between.place and between.ci[1] == 3
    assert 0 < first.place < 1 and first.value is None
    assert first.ci == (0, 1), "a step left out has no rank"


def test_a_setting_within_the_loss_before_a_collapse_is_told_from_one_beyond_it():
    request = surface_request(sparsities=(0.5, 0.7), bits=(8, 4), contour={"measure": "kl", "level": 0.05})
    broken = surface_table(request, documents=12, broken=((1, 0), (2, 0))).contour().limits[0]
    assert (broken.place, broken.value, broken.largest, broken.ci) == (0, 0, 0, (0, 0.5))
    beyond = surface_table(request, documents=12, broken=((0, 0),)).contour().limits[0]
    assert (beyond.place, beyond.largest) == (0, None)


def test_the_path_holds_settings_of_both_orders():
    request = surface_request(sparsities=(0.3, 0.5), bits=(8, 4), orders="both")
    made = surface_table(request, documents=12, order=-0.5)
    sizes = {(0, 0, "as given"): 9, (1, 1, "reversed"): 7, (1, 1, "as given"): 5}
    told = [
        (step.first, step.second, step.order)
        for step in with_bytes(made, {k: 10**6 * v for k, v in sizes.items()}, 20 * 10**6).path()
    ]
    assert told == list(sizes), "the largest first"


@pytest.mark.parametrize(
    ("measure", "level"), [("kl", 0.02), ("kl", 0.05), ("perplexity_ratio", 1.03), ("perplexity_ratio", 1.1)]
)
def test_the_interval_of_a_limit_excludes_no_setting_whose_own_interval_holds_the_level(measure, level):
    sparsities = tuple(round(0.04 * index, 2) for index in range(1, 19))
    held = 0
    for seed in range(6):
        request = surface_request(sparsities=sparsities, bits=(8, 4), contour={"measure": measure, "level": level})
        made = surface_table(request, documents=6, seed=seed)
        for one in made.contour().limits:
            which = 0 if one.knob == "first" else 1
            axis = made.axes[which]
            low, high = one.ci
            for place in range(len(axis.values)):
                loss = made.loss_means[made.along(which, one.at, place)]
                if loss.ci[0] > level:
                    break
                if loss.ci[1] > level:
                    held += 1
                    weaker, value, stronger = (
                        end if end is None or axis.knob.field == "sparsity" else -end
                        for end in (low, axis.number(place), high)
                    )
                    assert weaker <= value and (stronger is None or value <= stronger)
    assert held > 10


def test_the_p_of_an_order_effect_in_kl_is_that_of_kl():
    made = surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4), orders="both"), documents=12)

    def change(index, record):
        cell = made.cells[index]
        if cell.order != "reversed":
            return record
        given = made.records[made.index[cell.first, cell.second, "as given"]]
        # Every document is told apart in KL, and in ln PPL one half of them does better by what the other loses.
        swung = tuple(loss + (20 if place % 2 else -20) for place, loss in enumerate(given.sums.loss))
        sums = given.sums.model_copy(update={"kl": tuple(kl + 5 for kl in given.sums.kl), "loss": swung})
        return record.model_copy(update={"sums": sums})

    for row in with_records(made, change).order_effects():
        assert row.kl.mean == pytest.approx(5 / 160) and row.p_kl < 0.01
        assert row.log_perplexity.mean == pytest.approx(0, abs=1e-9) and row.p > 0.5


@pytest.mark.parametrize(("spared", "chosen"), [(1000, 1), (10**6, 2)])
def test_of_sizes_next_to_each_other_the_setting_that_loses_least_is_chosen(spared, chosen):
    request = surface_request(sparsities=(0.1, 0.2), bits=(8, 4), contour={"measure": "kl", "level": 0.5})
    made = surface_table(request, documents=12)
    sizes = {(1, 0, "as given"): 90_000_000, (2, 0, "as given"): 90_000_000 - spared}
    found = with_bytes(made, sizes, 200_000_000)
    assert found.within(found.along(0, 0, 2)) == "yes"
    assert found.cells[found.chosen()].first == chosen


@pytest.mark.parametrize(("level", "within"), [(1e-9, "no"), (0.0002, "undecided")])
def test_the_unmodified_model_is_never_chosen_but_the_mildest_changed_setting(level, within):
    request = surface_request(sparsities=(0.15, 0.5), bits=(4, 3), contour={"measure": "kl", "level": level})
    made = surface_table(request, documents=2)
    if within == "undecided":
        level = made.loss_means[made.along(0, 0, 1)].mean
        made = replace(
            made, request=request.model_copy(update={"contour": request.contour.model_copy(update={"level": level})})
        )
    assert made.within(made.along(0, 0, 0)) == "yes"
    chosen = made.cells[made.chosen()]
    assert (chosen.first, chosen.second) == (1, 0) and chosen.recipe
    assert made.within(made.chosen()) == within


def test_where_no_changed_setting_is_finite_nothing_can_be_chosen():
    request = surface_request(sparsities=(0.3, 0.6), bits=(6, 4))
    changed = [(p, q) for p in range(3) for q in range(3) if p or q]
    made = surface_table(request, documents=12, broken=tuple(changed[:5]), refused=tuple(changed[5:]))
    assert made.changed() == []
    with pytest.raises(ValueError, match="empty"):
        made.chosen()


def of_equal_weights():
    """Three bits alone, and a tenth pruned after rounding to three bits: the same weights, counted at two sizes."""
    request = surface_request(
        sparsities=(0.1, 0.2), bits=(4, 3), orders="both", contour={"measure": "kl", "level": 10.0}
    )
    made = surface_table(request, documents=12)
    rounded, exchanged = made.index[0, 2, "as given"], made.index[1, 2, "reversed"]
    counted = {rounded: (100_446_336, 100_446_336), exchanged: (100_446_336, 100_401_684)}

    def change(index, record):
        size, sparse = counted.get(index, (200_000_000, 200_000_000 - index))
        # of the two, the weights are the same
        record = made.records[rounded] if index in counted else record
        return record.model_copy(update={"bytes": size, "sparse_bytes": sparse})

    return with_records(made, change), rounded, exchanged


def test_settings_of_equal_weights_count_with_the_fewest_bytes_of_them():
    made, rounded, exchanged = of_equal_weights()
    assert made.bytes(rounded) == made.bytes(exchanged) == 100_401_684
    points = [_point(made, index) for index in (rounded, exchanged)]
    assert {(one.bytes, one.sparse_bytes) for one in points} == {(100_446_336, 100_401_684)}
    others = [index for index in range(len(made.cells)) if index not in (rounded, exchanged)]
    assert [made.bytes(index) for index in others] == [200_000_000 - index for index in others]


def test_of_equal_weights_path_and_choice_name_the_setting_of_fewer_knobs_not_exchanged():
    made, rounded, _ = of_equal_weights()
    last = made.path()[-1]
    assert (last.first, last.second, last.order, last.bytes) == (0, 2, "as given", 100_401_684)
    assert all(step.order == "as given" for step in made.path())
    assert made.chosen() == rounded
