"""What the search tries, within its budget, against damage that is planted where a short budget would not look."""

import numpy as np
import pytest

from app.kinds.attribute.request import LEVELS
from app.settings import Settings
from tests.support.attempts import Context
from tests.unit.workers.diagnosis.attribute.planted import Planted, parts
from workers.diagnosis.attribute.search import Search


def searched(folder, planted, budget, *, levels=LEVELS, top=8):
    context = Context(Settings(home=folder), folder)
    made = Search(planted, parts(planted.layers), levels, budget, top, context)
    made.run()
    assert made.spent <= budget
    assert made.spent == pytest.approx(planted.passes({site.name: site for site in made.changed}))
    return made


def tried(search):
    return sorted(one.site.layer for one in search.found.values() if one.site.whole and one.site.layer is not None)


@pytest.mark.parametrize(("layers", "budget"), [(30, 32.0), (30, 26.0), (80, 64.0), (80, 100.0)])
def test_a_short_budget_finds_the_worst_layer_at_the_end(tmp_path, layers, budget):
    last = f"layers.{layers - 1}"
    search = searched(tmp_path, Planted(layers, frozenset({last, f"{last}.mlp.down_proj"})), budget)
    assert tried(search) == list(range(layers))
    assert search.untried == []
    assert {one.site.name for one in search.ranked[:2]} == {last, f"{last}.mlp.down_proj"}
    # the worst is looked at on all of the text, the mildest on a part of it
    assert search.found[last].batches == 2
    assert min(one.batches for one in search.found.values()) == 1


def test_where_the_budget_reaches_all_layers_are_measured_in_full(tmp_path):
    search = searched(tmp_path, Planted(30, frozenset({"layers.3"})), 64.0)
    assert all(search.found[f"layers.{layer}"].batches == 2 for layer in range(30))
    assert len(search.everything()) == 33
    # of some layers alone, they are not all that differs, however many of them were measured
    search.all_layers = False
    assert search.everything() == []


@pytest.mark.parametrize(
    ("budget", "most"),
    # the second step of layers is planned with all that the first one leaves, and made with what is affordable
    [
        (12.5, {"swap layers": (30, 45)}),
        (32.0, {"swap layers": (46, 50), "swap parts": (29, 29)}),
        (64.0, {"swap layers": (33, 33), "swap parts": (89, 89)}),
    ],
)
def test_it_tells_how_far_each_of_its_stages_is(tmp_path, budget, most):
    planted = Planted(30, frozenset({"layers.3"}))
    context = Context(Settings(home=tmp_path), tmp_path)
    Search(planted, parts(30), LEVELS, budget, 8, context).run()
    assert len(context.steps) == len(planted.asked)
    assert context.steps == [(phase, step, total) for phase, (made, total) in most.items() for step in range(made)]


@pytest.mark.parametrize("budget", [1.0, 3.0, 8.0, 12.5])
def test_what_cannot_be_tried_is_spread_over_the_model_and_known(tmp_path, budget):
    search = searched(tmp_path, Planted(80, frozenset()), budget)
    numbers = tried(search)
    assert 0 < len(numbers) < 80
    steps = np.diff([-1, *numbers, 80])
    assert steps.max() - steps.min() <= 2
    missing = [site.layer for site in search.untried if site.layer is not None]
    assert sorted([*numbers, *missing]) == list(range(80))


def test_parts_without_layers_to_go_by_are_spread_over_the_model(tmp_path):
    search = searched(tmp_path, Planted(80, frozenset()), 30.0, levels=("module",))
    numbers = sorted({one.site.layer for one in search.found.values() if one.site.layer is not None})
    assert numbers[0] == 0
    assert numbers[-1] == 79
    assert np.diff(numbers).max() <= 4
    assert len(search.left_out) + len(search.found) == 163


@pytest.mark.parametrize("ends", [(8,), (4, 8), (15, 30, 31), tuple(range(1, 7)), tuple(range(1, 9))])
def test_no_more_is_spent_than_the_budget(tmp_path, ends):
    # the worst ones are the first layers, which cost most to run again
    worst = frozenset(f"layers.{layer}{part}" for layer in range(12) for part in ("", ".mlp.up_proj", ".mlp.down_proj"))
    for budget in np.linspace(1, 70, 24).tolist():
        searched(tmp_path, Planted(30, worst, ends=ends), budget)
    for budget in (2.0, 4.0):
        searched(tmp_path, Planted(3, frozenset(), ends=ends), budget)


@pytest.mark.parametrize(("layers", "batches", "budget"), [(80, 3, 32.0), (30, 7, 9.0), (30, 6, 9.0), (30, 15, 9.0)])
def test_the_first_look_is_at_one_batch_whatever_their_number(tmp_path, layers, batches, budget):
    search = searched(tmp_path, Planted(layers, frozenset(), ends=tuple(range(1, batches + 1))), budget)
    assert tried(search) == list(range(layers))


def test_a_budget_that_reaches_for_no_part_tries_none(tmp_path):
    search = searched(tmp_path, Planted(3, frozenset(), head=40.0, ends=(8,)), 1.0)
    assert search.found == {}
    assert len(search.left_out) == len(search.changed)


class Overflowing(Planted):
    """Planted damage where the parts of `nowhere` leave no finite position."""

    nowhere = frozenset({"layers.5", "layers.5.mlp.down_proj"})

    def kl(self, sites, *, batches):
        (site,) = sites
        found = super().kl([site], batches=batches)
        return np.full_like(found, np.nan) if site.name in self.nowhere else found


def test_what_is_finite_nowhere_stands_before_the_ranking_and_is_not_lost(tmp_path):
    search = searched(tmp_path, Overflowing(8, frozenset({"layers.2"})), 64.0)
    assert [one.site.name for one in search.nowhere_finite] == ["layers.5.mlp.down_proj", "layers.5"]
    assert search.ranked[0].site.name == "layers.2"
    assert len(search.ranked) + len(search.nowhere_finite) == len(search.found)
    # as bad as can be: measured to the end, while milder ones were dropped
    short = searched(tmp_path, Overflowing(30, frozenset({"layers.2"})), 26.0)
    assert min(one.batches for one in short.found.values()) == 1
    assert all(one.batches == 2 for one in short.nowhere_finite)


class Easing(Planted):
    """Planted damage on a text whose first batch costs every part ten times as much as the rest of it."""

    def kl(self, sites, *, batches):
        found = super().kl(sites, batches=batches)
        found[: self.positions(1)] *= 10
        return found


def test_what_was_dropped_ranks_behind_what_was_worse_on_the_same_tokens(tmp_path):
    worst = frozenset(f"layers.{layer}" for layer in range(22, 30))
    search = searched(tmp_path, Easing(30, worst, ends=(1, 8)), 26.0)
    far = [one for one in search.ranked if one.batches == 2]
    dropped = [one for one in search.ranked if one.batches == 1]
    assert search.ranked == far + dropped
    assert worst <= {one.site.name for one in far}
    # by nats alone one that was dropped would stand before one that was not
    assert max(one.nats for one in dropped) > min(one.nats for one in far)
    # parts are tried in that order, too
    layers = [one.site.layer for one in search.ranked if one.site.whole and one.site.layer is not None]
    damage = search._damage_by_layer(layers)
    assert [damage[layer] for layer in layers] == sorted(damage.values(), reverse=True)
    for same in (far, dropped):
        assert [one.nats for one in same] == sorted((one.nats for one in same), reverse=True)
