"""`hemostat tasks` and `hemostat flips`: what they send, print, and end with."""

import copy
import json
from pathlib import Path

import pytest

from app.cli import flips, flips_sweep
from app.cli.output import Exit, exit_of
from app.commands.tasks import parse_task
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.tasks.report import TasksReport
from app.kinds.tasks.rule import FailOn, judge
from app.kinds.tasks.view import figures, outcome
from app.settings import Settings
from tests.support.commands import refused, run
from tests.support.tasks_reports import task, tasks_report, tasks_variants
from workers.analysis.flips.runs import Run, add, read


def test_a_task_that_could_not_be_scored_leaves_undecided_what_the_others_do_not_fail():
    report = tasks_report(task("a", "equivalent")) | {"unscored": ["coqa"]}
    assert judge(report, FailOn.NOT_EQUIVALENT) == "inconclusive"
    assert judge(report, FailOn.WORSE) == "inconclusive"
    assert judge(tasks_report(task("a", "worse")) | {"unscored": ["coqa"]}, FailOn.WORSE) == "fail"
    found = TasksReport.model_validate(report)
    assert outcome(found).startswith("Of 2 tasks: 1 equivalent, coqa could not be scored.")
    assert figures(found)[0].value == "1 of 2" and "1 not scored" in figures(found)[0].note


def test_a_task_that_cannot_be_read_is_refused_with_the_keys_that_it_has():
    keys = "valid: examples, items, max_tokens, metric, name, passage, shots"
    for written, hint in (
        ("arc", ""),
        ("arc:", ""),
        ("arc:a.jsonl,items", ""),
        ("arc:a.jsonl,colour=red", keys),
        ("arc:a.jsonl,item=1", f"did you mean 'items'? {keys}"),
        ("arc:a,b.jsonl", "comma"),
        ("shipped:all", ""),
        ("shipped:9,metric=acc", ""),
        ("harness:gsm8k", ""),
        ("gsm8k:g.jsonl,filter=strict-match", keys),
    ):
        with pytest.raises(HemostatError) as caught:
            parse_task(written)
        assert caught.value.code is ErrorCode.INVALID_REQUEST
        assert caught.value.hint
        assert hint in caught.value.hint


def test_the_exit_status_follows_the_rule():
    for outcomes, worse, not_equivalent in (
        (["equivalent", "equivalent"], 0, 0),
        (["worse", "equivalent"], 1, 1),
        (["inconclusive", "equivalent"], 0, 3),
        (["at_chance", "equivalent"], 0, 3),
        (["at_chance"], 3, 3),
    ):
        report = tasks_report(*(task(f"t{number}", outcome) for number, outcome in enumerate(outcomes)))
        assert exit_of(judge(report, FailOn.WORSE)) == worse
        assert exit_of(judge(report, FailOn.NOT_EQUIVALENT)) == not_equivalent


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(flips, "settings", lambda: Settings(home=tmp_path))
    return tmp_path


RUNS = [
    Run(f"j{n}", f"t{n % 3}", f"f{n % 3}", 300, 6 + 4 * (n // 3), 0.02 * 2 ** (n // 3), candidate=f"c{n}")
    for n in range(15)
]


def predicted(line):
    done = run(f"flips predict {line} --json")
    return done.exit_code, json.loads(done.stdout)


def test_without_runs_nothing_is_predicted(home):
    done = run("flips predict 0.3")
    assert done.exit_code == Exit.REFUSED
    # What a person reads says what to run; a program reads the answer and nothing beside it.
    assert "hemostat flips build" in done.stderr
    assert predicted("0.3")[1]["status"] == "none"


def test_a_prediction_has_an_interval_and_its_basis_and_ends_where_nothing_was_seen(home):
    add(home, RUNS)
    status, told = predicted("0.1 --items 300 --task t1")
    assert status == Exit.OK
    assert (told["status"], told["runs"], told["tasks"], told["task"]) == ("seen", 15, 3, "f1")
    assert told["interval"][0] < told["rate"] < told["interval"][1]
    assert predicted("7 --items 300")[0] == Exit.REFUSED


def test_the_documented_predictions_are_what_the_page_says_after_the_documented_sweep(home):
    """Nine runs of the shipped task; a line ends with 0 unless its comment says else."""
    sweep = zip((0.003, 0.024, 0.1, 0.32, 1.5, 0.06, 0.09, 0.27, 0.66), (2, 2, 5, 9, 42, 7, 5, 15, 25), strict=True)
    add(home, [Run(f"j{n}", "example", "f", 206, flips, kl, candidate=f"c{n}") for n, (kl, flips) in enumerate(sweep)])
    page = (Path(flips.__file__).parents[2] / "docs" / "flips.md").read_text(encoding="utf-8")
    lines = [line.removeprefix("hemostat ") for line in page.splitlines() if line.startswith("hemostat flips predict")]
    assert len(lines) == 3
    for line in lines:
        ends = Exit.REFUSED if "ends with 2" in line else Exit.OK
        assert run(line.partition("#")[0]).exit_code == ends, line


def test_what_cannot_be_predicted_is_refused(home):
    add(home, RUNS)
    for line, named in (
        ("0", ["0"]),
        ("nan", ["nan"]),
        ("inf", ["inf"]),
        ("0.1 --items 0", ["--items is 0"]),
        ("0.1 --task unheard", ["unheard"]),
    ):
        error = refused(f"flips predict {line}")
        assert error.code is ErrorCode.INVALID_REQUEST
        assert all(part in error.detail for part in named)
    for line in ("0.1 --itms 5", "0.1 --itms=5"):
        done = run(f"flips predict {line}")
        assert done.exit_code == Exit.REFUSED
        assert "--items" in done.output


def test_a_rule_that_there_is_not_is_told_with_those_there_are():
    for command, first in (("compare", "mild"), ("tasks", "worse")):
        done = run(f"{command} --reference tiny --fail-on bad")
        assert done.exit_code == Exit.REFUSED
        assert f"'{first}'" in done.output


class Service:
    """Two finished jobs, a page each."""

    def __init__(self):
        self.reports = {"a": tasks_variants()["several"], "b": tasks_variants()["one"]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Nothing to end."""

    def jobs(self, **filters):
        assert filters["kind"] == "tasks"
        name = "a" if filters["after"] is None else "b"
        return {"data": [{"id": name, "finished_at": 3.0}], "has_more": name == "a", "last_id": name}

    def report(self, job_id):
        return self.reports[job_id]

    def submit(self, request):
        assert request["dry_run"]
        return {"seconds": 61.0}


def gathered(monkeypatch, service):
    monkeypatch.setattr(flips, "connect", lambda *_: service)
    done = run("flips build --from-jobs --json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["added"]


def test_finished_jobs_are_gathered_once(home, monkeypatch):
    for added in (5, 0):  # five tasks, of which one is at chance, and one of another job
        assert gathered(monkeypatch, Service()) == added
    kept = read(home)
    assert "mmlu" not in {run.task for run in kept}
    assert {run.kl for run in kept} == {report["divergence"]["kl"]["mean"] for report in Service().reports.values()}


def test_what_a_job_does_not_remember_is_not_gathered_either(home, monkeypatch):
    """A task in which a model gives no number, and a candidate with a temperature: KL moves, and no first choice."""
    for place in ("task", "candidate"):
        service = Service()
        report = service.reports["b"] = copy.deepcopy(service.reports["b"])
        if place == "task":
            report["tasks"][0]["not_finite_candidate"] = {"positions": 3, "items": 2}
        else:
            made = report["provenance"]["candidate"]
            made["recipe"] = [*(made["recipe"] or ()), {"type": "decode.temperature", "temperature": 1.5}]
        gathered(monkeypatch, service)
        assert {run.job for run in read(home)} == {"a"}


def test_a_sweep_says_of_each_run_what_it_found(home, monkeypatch):
    monkeypatch.setattr(flips, "connect_or_start", lambda *_: Service())
    monkeypatch.setattr(flips_sweep, "run_to_end", lambda *_: {"id": "a"})
    output = run("flips build -r tiny --recipe quantize.rtn:bits=4").output
    said = [line for line in output.splitlines() if "answers flipped at a KL of" in line]
    for line, result in zip(said, Service().reports["a"]["tasks"], strict=True):
        moved = [result["flips"][way] for way in ("harmful", "helpful")]
        assert line.startswith(f"{result['name']}: {sum(moved)} of {result['items']} answers flipped")
        assert line.endswith("not learned from") == (result["outcome"] == "at_chance")


def test_where_a_recipe_failed_the_others_are_added_and_it_fails(home, monkeypatch):
    def to_end(client, request, console):
        if request["candidate"]["recipe"][0]["bits"] == 3:
            raise HemostatError(ErrorCode.ENGINE_FAILED, "the engine ended")
        return {"id": "a"}

    monkeypatch.setattr(flips, "connect_or_start", lambda *_: Service())
    monkeypatch.setattr(flips_sweep, "run_to_end", to_end)
    done = run("flips build -r tiny --recipe quantize.rtn:bits=3 --recipe quantize.rtn:bits=4 --json")
    assert done.exit_code == Exit.FAILED
    told = json.loads(done.stdout)
    assert (told["added"], len(read(home))) == (5, 5)
    assert told["jobs"] == [
        {"recipe": "quantize.rtn:bits=4", "job": "a"},
        {"recipe": "quantize.rtn:bits=3", "error": "engine_failed"},
    ]
    assert "not finished: quantize.rtn:bits=3" in done.stderr
