"""`hemostat sweep`: what it sends, and the command that a report gives to repeat it."""

import shlex

import pytest
from typer.testing import CliRunner

from app.cli import submitting as command
from app.cli.main import app
from app.commands.knobs import turn
from app.contracts.errors import HemostatError
from app.kinds.sweep.report import SweepReport
from app.kinds.sweep.request import SweepRequest
from app.kinds.sweep.words import heading
from app.models.knobs import lift
from app.models.strength import Order
from tests.support.sweep_reports import course, sweep_report


def sent(monkeypatch, arguments):
    found = {}

    def measure(request, configured, **_):
        found.update(request=request)

    monkeypatch.setattr(command, "measure", measure)
    done = CliRunner().invoke(app, ["sweep", *arguments])
    assert done.exit_code == 0, done.output
    return found


def test_tasks_are_written_as_those_of_a_tasks_job(monkeypatch):
    line = "-r a --recipe prune.wanda --knob sparsity=0.1,0.2 --task shipped:50 --task arc:arc.jsonl,items=200"
    request = SweepRequest.model_validate(lift(sent(monkeypatch, shlex.split(line))["request"]))
    assert [task.model_dump(exclude_defaults=True) for task in request.tasks] == [
        {"source": "shipped", "items": 50},
        {"source": "file", "format": "arc", "path": "arc.jsonl", "items": 200},
    ]
    assert SweepRequest.model_validate(lift(sent(monkeypatch, shlex.split(line)[:6])["request"])).tasks == ()


def test_options_become_a_request_that_the_service_takes(monkeypatch):
    line = (
        "-r a -c b --recipe prune.wanda:seed=3 --recipe quantize.rtn:bits=8 --knob 0.sparsity=0.1..0.5:5 --budget 4 "
        "--bound b=0.. --bound s0=0.2..0.4 --text shipped:20 --threshold moderate=0.1"
    )
    found = sent(monkeypatch, shlex.split(line))
    request = SweepRequest.model_validate(lift(found["request"]))
    assert request.knobs[0].model_dump() == {"step": 0, "field": "sparsity", "values": (0.1, 0.2, 0.3, 0.4, 0.5)}
    assert (request.budget, request.planned, request.bounds.b, request.bounds.s0) == (4, 4, (0, None), (0.2, 0.4))
    assert request.thresholds.moderate == 0.1


def test_on_one_side_of_the_neutral_value_it_counts_for_no_mild_setting():
    order = Order("around", (0, 1), 1.0)
    settings = [(1.0, None, 0.001, 0.001), (2.0, None, 0.9, 0.9)]
    body = sweep_report(course(settings, order=order), field="factor", share=None)
    assert body["verdict"].startswith("Not even factor = 2 keeps the damage mild")
    assert heading(SweepReport.model_validate(body)) == "No value of factor but 1 stays mild"
    body = sweep_report(course(settings, order=order, refused=1), field="factor", share=None)
    assert body["verdict"].startswith("Only factor = 1 was measured, which changes nothing by itself.")
    assert heading(SweepReport.model_validate(body)) == "factor: only 1 was measured, which changes nothing"


def test_a_budget_of_nothing_is_sent_and_not_taken_for_none(monkeypatch):
    found = sent(monkeypatch, shlex.split("-r a --recipe prune.wanda --knob sparsity=0.1,0.2 --budget 0"))
    assert found["request"]["budget"] == 0


@pytest.mark.parametrize(
    ("knob", "written"),
    [
        ("bits=8,6,4", [8, 6, 4]),
        ("pattern=2:4,1:4", ["2:4", "1:4"]),
        ("layers=0+1,2", [[0, 1], 2]),
        ("rank=64..8:3", {"from": 64, "to": 8, "points": 3}),
    ],
)
def test_a_knob_is_a_list_or_a_range(knob, written):
    steps = [{"type": "x"}]
    turn(steps, knob)
    assert steps[0][knob.partition("=")[0]] == {"sweep": written}


def test_a_step_that_there_is_not_is_told_with_how_many_there_are():
    for steps, said in (([], "no step"), ([{"type": "prune.wanda"}], "1 step"), ([{}, {}], "2 steps")):
        with pytest.raises(HemostatError, match=f"the recipe has {said}, and none of number 7; .*counted from 0"):
            turn(steps, "7.bits=1,2")


@pytest.mark.parametrize("knob", ["bits", "=3", "a.bits=1,2", "7.bits=1,2", "rank=a..b:3"])
def test_a_knob_that_is_none_is_refused(knob):
    with pytest.raises(HemostatError, match="--knob"):
        turn([{"type": "x"}], knob)


@pytest.mark.parametrize(("kind", "again"), [("surface", "bits=3,2"), ("surface", "0.bits=3,2"), ("sweep", "bits=3,2")])
def test_values_of_one_field_are_not_given_twice(kind, again):
    line = f"{kind} -r a --recipe quantize.rtn --knob bits=8,4 --knob {again}"
    done = CliRunner().invoke(app, shlex.split(line))
    assert isinstance(done.exception, HemostatError)
    assert done.exception.detail == (
        f"--knob {again}: bits of step 0 has values already, and all of a field stand in one --knob"
    )


def test_of_several_steps_the_knob_says_which():
    with pytest.raises(HemostatError, match="does not say which") as refused:
        turn([{"type": "x"}, {"type": "y"}], "bits=1,2")
    assert refused.value.hint == "--knob 0.bits=1,2 (x) or --knob 1.bits=1,2 (y)"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sweep -r a --recipe prune.wanda", "a sweep turns one knob, and none is given: --knob is missing"),
        (
            "surface -r a --recipe prune.wanda --recipe quantize.rtn --knob 0.sparsity=0.1,0.2",
            "a surface turns two knobs, and one is given: a second --knob is missing",
        ),
        (
            "surface -r a --recipe prune.wanda --recipe quantize.rtn",
            "a surface turns two knobs, and none is given: --knob is missing twice",
        ),
    ],
)
def test_a_missing_knob_is_asked_for_before_the_service_is(line, said):
    done = CliRunner().invoke(app, shlex.split(line))
    assert isinstance(done.exception, HemostatError)
    assert done.exception.detail == said
    assert "--knob sparsity=" in done.exception.hint


@pytest.mark.parametrize(
    ("recipe", "knobs"),
    [
        ("--recipe prune.wanda --recipe quantize.rtn", ("0.sparsity=0.1,0.2,0.3", "1.bits=8,6")),
        ("--recipe prune.wanda", ("sparsity=0.1,0.2", "scope=row,layer")),
        ("--recipe prune.wanda --recipe quantize.rtn", ("sparsity=0.1,0.2", "bits=8,6")),
    ],
)
def test_a_second_knob_is_refused_and_both_are_named(recipe, knobs):
    line = f"sweep -r a {recipe} --knob {knobs[0]} --knob {knobs[1]} --dry-run"
    done = CliRunner().invoke(app, shlex.split(line))
    assert isinstance(done.exception, HemostatError), done.output
    assert done.exception.detail == (
        f"a sweep turns one knob, and 2 are given: --knob {knobs[0]} and --knob {knobs[1]}"
    )
    assert "`hemostat surface`" in done.exception.hint


def test_a_knob_in_json_is_one(monkeypatch):
    found = sent(monkeypatch, ["-r", "a", "--recipe", '{"type": "prune.wanda", "sparsity": {"sweep": [0.1, 0.2]}}'])
    assert found["request"]["candidate"]["recipe"][0]["sparsity"] == {"sweep": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("0.1..0.7", "the range has no points: FROM..TO:POINTS"),
        ("0.1..0.7:", "the range has no points: FROM..TO:POINTS"),
        ("1..-5e1", "the range has no points: FROM..TO:POINTS"),
        ("0.1..0.7:many", "points is many, not a whole number"),
        ("0.1..0.7:1", "points is 1, not a whole number from 2 to 200"),
        ("0.1..0.7:201", "points is 201, not a whole number from 2 to 200"),
        ("0.3..0.3:4", "the range begins where it ends"),
        ("0.3", "one value shows no course, and 2 are the fewest"),
        ("", "no value shows no course, and 2 are the fewest"),
    ],
)
def test_a_range_or_list_that_is_too_short_is_told_as_the_option_is_written(values, said):
    with pytest.raises(HemostatError) as found:
        turn([{"type": "prune.wanda"}], f"sparsity={values}")
    assert found.value.detail == f"--knob sparsity={values}: {said}"
    assert "--knob sparsity=0.1,0.2" in found.value.hint and "{" not in found.value.hint
