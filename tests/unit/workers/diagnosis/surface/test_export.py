"""What a surface leaves beside its report: files, and metrics that the worker knows."""

import csv
import json
import math

import pytest

from app.kinds.surface.report import SurfaceReport
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.surface_reports import surface_report, surface_request
from workers.diagnosis.surface import export as exporting
from workers.diagnosis.surface.export import RECIPE_FILE, TABLE_FILE, export
from workers.telemetry import Telemetry


def small(**asked):
    return surface_request(**({"sparsities": (0.3, 0.6), "bits": (6, 4)} | asked))


def exported(tmp_path, request, **drawn):
    report = SurfaceReport.model_validate(surface_report(request, **drawn))
    context = Context(Settings(home=tmp_path), tmp_path)
    export(report, request, context)
    told = {}
    for name, value, labels in context.samples:
        told.setdefault(name, []).append((value, labels))
    return report, context, told


def one(told, name):
    ((value, labels),) = told[name]
    return value, labels


def test_the_largest_interaction_and_what_departs_are_gauges_of_the_recipe_that_was_asked_for(tmp_path):
    request = small()
    report, context, told = exported(tmp_path, request)
    most = max(report.interactions, key=lambda row: abs(row.nats.mean))
    value, labels = one(told, "surface_interaction_nats")
    assert value == most.nats.mean
    assert (one(told, "surface_interaction_low_nats")[0], one(told, "surface_interaction_high_nats")[0]) == most.nats.ci
    compounding = [row.kind for row in report.interactions].count("compounds")
    assert 0 < compounding <= 4
    assert one(told, "surface_departing_ratio")[0] == compounding / 4
    telemetry = Telemetry()
    for name, value, of in context.samples:
        telemetry.observe(name, value, **of)
    assert telemetry.value("surface_points", outcome="measured") == 9, "the worker knows every metric"
    assert labels["recipe"] != one(told, "kl_mean_nats")[1]["recipe"], "the chosen setting has a recipe of its own"
    other = exported(tmp_path, small(contour={"measure": "perplexity", "level": 2.0}))[2]
    assert one(other, "surface_interaction_nats")[1] == labels, "another choice, the same series"
    fewer = exported(tmp_path, small(bits=(8, 5)))[2]
    assert one(fewer, "surface_interaction_nats")[1] != labels


def test_the_chosen_setting_is_told_in_bytes_as_the_report_counts_them(tmp_path):
    for storage, field in (("sparse", "sparse_bytes"), ("dense", "bytes")):
        report, _, told = exported(tmp_path, small(storage=storage))
        point = next(
            point
            for point in report.points
            if (point.first, point.second) == (report.chosen.first, report.chosen.second)
        )
        assert one(told, "surface_chosen_bytes")[0] == getattr(point, field)
        assert one(told, "surface_within")[0] == 1.0
    none = exported(tmp_path, small(contour={"measure": "perplexity", "level": 2.0}))[2]
    assert one(none, "surface_within")[0] == 0.0


def test_points_are_counted_and_what_is_not_known_is_nan(tmp_path):
    report, _, told = exported(tmp_path, surface_request(), broken=((5, 4), (0, 4)), refused=((5, 0),), documents=4)
    assert {labels["outcome"]: value for value, labels in told["surface_points"]} == {"measured": 29, "refused": 1}
    few = exported(tmp_path, small(), documents=1)[2]
    assert math.isnan(one(few, "surface_interaction_low_nats")[0])
    assert one(few, "surface_departing_ratio")[0] == 0.0
    assert len(report.points) == 30


def test_the_files_hold_every_setting_and_the_chosen_recipe(tmp_path):
    report, context, _ = exported(tmp_path, small())
    rows = list(csv.DictReader((context.output / TABLE_FILE).read_text().splitlines()))
    assert len(rows) == 9
    assert [float(row["kl"]) for row in rows] == pytest.approx([point.kl.mean for point in report.points])
    assert json.loads((context.output / RECIPE_FILE).read_text()) == list(report.chosen.recipe)


def test_values_that_are_lists_of_words_are_one_cell_each(tmp_path):
    report, _, _ = exported(tmp_path, small())
    first, second = report.knobs
    values = (None, *(["q_proj", "null", f"m{place}"] for place in range(1, len(first.values))))
    changed = report.model_copy(update={"knobs": (first.model_copy(update={"values": values}), second)})
    rows = list(csv.DictReader(exporting._csv(changed).splitlines()))
    cells = [row[f"{first.step}.{first.field}"] for row in rows]
    assert [json.loads(cell) if cell else None for cell in cells] == [values[point.first] for point in report.points]
    assert [row["order"] for row in rows] == [point.order for point in report.points]


def test_no_recipe_is_left_where_no_changed_setting_is_within(tmp_path):
    report, context, told = exported(tmp_path, small(contour={"measure": "kl", "level": 1e-9}))
    assert report.chosen.recipe and not report.chosen.within
    assert not (context.output / RECIPE_FILE).exists()
    assert one(told, "surface_within")[0] == 0.0
    assert one(told, "kl_mean_nats")[1]["recipe"] != "none"
