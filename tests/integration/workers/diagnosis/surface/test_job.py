"""A surface job from request to report, with a real engine on a tiny model."""

import csv
import json
import math
from typing import Any

import numpy as np
import pytest

from app.kinds.surface.report import SurfaceReport
from tests.support.attempts import Context
from tests.support.tiny_jobs import Jobs, body, document, validated
from workers.diagnosis.surface.job import help_surface

DOCUMENTS = [document(number, 50, "prose" if number % 2 else "code") for number in range(12)]
RECIPE = [{"type": "prune.magnitude", "sparsity": 0.3}, {"type": "quantize.rtn", "bits": 8, "group_size": 32}]
KNOBS = [
    {"step": 0, "field": "sparsity", "values": [0.3, 0.7]},
    {"step": 1, "field": "bits", "values": [8, 2]},
]


def request(**changes: Any) -> Any:
    asked = {"knobs": KNOBS, "orders": "both", "contour": {"measure": "perplexity_ratio", "level": 1.002}}
    return validated(body("surface", RECIPE, DOCUMENTS) | asked | changes)


@pytest.fixture(scope="module")
def done(module_jobs: Jobs) -> tuple[SurfaceReport, Context]:
    return module_jobs.run(request()), module_jobs.context


def point(report: SurfaceReport, first: int, second: int, order: str = "as given") -> Any:
    return next(one for one in report.points if (one.first, one.second, one.order) == (first, second, order))


def test_every_setting_is_measured_once_in_each_order(done: tuple[SurfaceReport, Context]) -> None:
    report, context = done
    assert len(report.points) == 9 + 4
    assert [knob.values for knob in report.knobs] == [(None, 0.3, 0.7), (None, 8, 2)]
    assert [knob.zero for knob in report.knobs] == [0.0, 16.0]
    assert report.orders == ("as given", "reversed")
    assert report.zero == "left out"
    assert "points" in context.phases


def test_nothing_turned_is_the_reference(done: tuple[SurfaceReport, Context]) -> None:
    zero = point(done[0], 0, 0)
    assert zero.kl.mean == 0.0
    assert zero.perplexity_ratio.mean == 1.0
    assert zero.recipe == ()


def test_a_point_is_what_a_compare_job_of_its_recipe_measures(done: tuple[SurfaceReport, Context], jobs: Jobs) -> None:
    found = point(done[0], 2, 2, "reversed")
    assert [step["type"] for step in found.recipe] == ["quantize.rtn", "prune.magnitude"]
    alone = jobs.compared(request(), found.recipe)
    assert found.kl.mean == pytest.approx(alone.divergence.kl.mean, rel=1e-9)
    assert found.kl.ci == pytest.approx(alone.divergence.kl.ci, rel=1e-9)
    assert found.perplexity == pytest.approx(alone.perplexity.candidate, rel=1e-9)
    assert found.bytes == alone.provenance.candidate.bytes


def test_interactions_are_those_of_the_perplexities(done: tuple[SurfaceReport, Context]) -> None:
    report, _ = done
    assert len(report.interactions) == 8
    for one in report.interactions:
        log = {
            (p, q): math.log(point(report, p, q, one.order if p and q else "as given").perplexity)
            for p in (0, one.first)
            for q in (0, one.second)
        }
        expected = log[one.first, one.second] - log[one.first, 0] - log[0, one.second] + log[0, 0]
        assert one.nats.mean == pytest.approx(expected, abs=1e-9)
        low, high = one.nats.ci or (0.0, 0.0)
        assert low <= one.nats.mean <= high
    assert report.margin == 0.01
    assert all(point.kernel_term is None and point.no_kernel_term == "" for point in report.points)


def test_order_effects_are_differences_of_the_two_orders(done: tuple[SurfaceReport, Context]) -> None:
    report, _ = done
    assert len(report.order_effects) == 4
    for one in report.order_effects:
        given, other = (point(report, one.first, one.second, order) for order in ("as given", "reversed"))
        assert one.kl.mean == pytest.approx(other.kl.mean - given.kl.mean, abs=1e-9)
        assert one.log_perplexity.mean == pytest.approx(math.log(other.perplexity / given.perplexity), abs=1e-9)


def test_limits_lie_where_the_loss_passes_the_level(done: tuple[SurfaceReport, Context]) -> None:
    report, _ = done
    assert report.contour.level == 1.002
    assert len(report.contour.limits) == 6
    shares = np.array([0.0, 0.3, 0.7])
    for limit in report.contour.limits[:3]:
        losses = [math.log(point(report, place, limit.at).perplexity_ratio.mean) for place in range(3)]
        beyond = [index for index, loss in enumerate(losses) if loss > math.log(1.002)]
        if not beyond:
            assert limit.value is None
        elif beyond[0] == 0:
            assert limit.value == 0.0
        else:
            after = beyond[0]
            expected = np.interp(math.log(1.002), losses[after - 1 : after + 1], shares[after - 1 : after + 1])
            assert limit.value == pytest.approx(float(expected), abs=1e-9)


def test_the_path_holds_what_nothing_beats_and_zeros_are_not_stored(done: tuple[SurfaceReport, Context]) -> None:
    report, _ = done
    assert report.storage == "sparse"
    sizes = {(one.first, one.second, one.order): (one.sparse_bytes, one.loss.mean) for one in report.points}
    on_path = {(one.first, one.second, one.order) for one in report.path}
    for key, (size, loss) in sizes.items():
        beaten = any(s <= size and x <= loss and (s, x) != (size, loss) for s, x in sizes.values())
        if key in on_path:
            assert not beaten
    assert point(report, 2, 0).sparse_bytes < point(report, 2, 0).bytes
    assert point(report, 0, 1).sparse_bytes == point(report, 0, 1).bytes


def test_the_common_blocks_speak_of_the_chosen_setting(done: tuple[SurfaceReport, Context]) -> None:
    report, _ = done
    chosen = point(report, report.chosen.first, report.chosen.second, report.chosen.order)
    assert report.divergence.kl.mean == chosen.kl.mean
    assert report.severity == chosen.severity
    assert report.chosen.within
    sure = [one for one in report.points if one.loss.ci and one.loss.ci[1] <= 1.002]
    assert chosen.sparse_bytes == min(one.sparse_bytes or 0 for one in sure)


def test_table_and_recipe_are_artifacts(done: tuple[SurfaceReport, Context]) -> None:
    report, context = done
    rows = list(csv.DictReader((context.output / "surface.csv").read_text().splitlines()))
    assert len(rows) == 13
    assert {row["0.sparsity"] for row in rows} == {"", "0.3", "0.7"}
    assert float(rows[-1]["kl"]) == report.points[-1].kl.mean
    assert json.loads((context.output / "recipe.json").read_text()) == list(report.chosen.recipe)


def test_a_lost_attempt_is_taken_up_again(jobs: Jobs) -> None:
    small = request(orders="as given")
    lost = jobs.stopped(small, stop=lambda context: len(context.kept("points/*.json")) >= 4)
    kept = lost.kept("points/*.json")
    assert len(kept) >= 4
    report = jobs.run(small)
    assert len(report.points) == 9
    assert all(file.stat().st_mtime_ns == at for file, at in kept.items()), "no point is measured twice"
    assert report.orders == ("as given",)
    assert "other_order" in {one.code for one in report.not_tested}


def test_a_helper_measures_what_nobody_has_in_both_orders(done: tuple[SurfaceReport, Context], jobs: Jobs) -> None:
    helping = jobs.attempt()
    help_surface(request(), helping, jobs.room)
    kept = helping.kept("points/*.json")
    assert len(kept) == len(done[0].points)
    report = jobs.run(request())
    assert all(file.stat().st_mtime_ns == at for file, at in kept.items()), "no point is measured twice"
    assert report.points == done[0].points


def test_two_knobs_of_one_step_are_counted_from_their_first_values(jobs: Jobs) -> None:
    asked = request(
        orders="as given",
        candidate={"model": "tiny", "recipe": RECIPE[1:]},
        knobs=[
            {"step": 0, "field": "bits", "values": [8, 3]},
            {"step": 0, "field": "group_size", "values": [16, 64]},
        ],
    )
    report = jobs.run(asked)
    assert report.zero == "first value"
    assert [knob.values for knob in report.knobs] == [(8, 3), (16, 64)]
    first = report.points[0].recipe[0]
    assert (first["bits"], first["group_size"]) == (8, 16), "nothing is left out"
    (one,) = report.interactions
    log = {(p, q): math.log(point(report, p, q).perplexity) for p in (0, 1) for q in (0, 1)}
    assert one.nats.mean == pytest.approx(log[1, 1] - log[1, 0] - log[0, 1] + log[0, 0], abs=1e-9)
    assert any(warning.code == "zero_is_first_value" for warning in report.warnings)
    assert "other_order" not in {one.code for one in report.not_tested}, "there is none"


def test_a_temperature_is_a_knob_beside_rounding_and_their_order_changes_nothing(jobs: Jobs) -> None:
    """Rounded weights do not know the final norm: both orders make the same bytes."""
    steps = [{"type": "quantize.rtn", "bits": 8, "group_size": 32}, {"type": "decode.temperature", "temperature": 0.8}]
    knobs = [
        {"step": 0, "field": "bits", "values": [8, 3]},
        {"step": 1, "field": "temperature", "values": [0.8, 1.25]},
    ]
    asked = request(candidate={"model": "tiny", "recipe": steps}, knobs=knobs)
    report = jobs.run(asked)
    assert len(report.points) == 9 + 4 and all(one.perplexity for one in report.points)
    assert point(report, 0, 0).kl.mean == 0.0
    for first in (1, 2):
        for second in (1, 2):
            given, reversed_ = (point(report, first, second, order) for order in ("as given", "reversed"))
            assert given.weights_fingerprint == reversed_.weights_fingerprint
            assert given.kl.mean and given.perplexity == reversed_.perplexity
    assert report.order_effects and all(one.log_perplexity.mean == one.kl.mean == 0.0 for one in report.order_effects)
