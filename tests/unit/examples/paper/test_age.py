"""Whether the code has moved on since the claims were measured."""

import dataclasses

import pytest

from app.cli.output import Exit
from examples.paper.__main__ import aged, main
from examples.paper.age import moved_on
from examples.paper.claim import claims, jobs_of, request
from examples.paper.elsewhere import Ruling
from examples.paper.finding import Finding
from examples.paper.page import Results, Told, versions_of, write
from workers.surgery.application import SURGERY_VERSION

THEN = {"knee": "prune.wanda 1; surgery 4", "cliff": "surgery 4"}
TODAY = THEN | {"attention": "surgery 4"}


def test_only_versions_that_differ_are_named_with_those_of_today():
    assert moved_on(THEN, TODAY) == {}
    assert moved_on(THEN, TODAY | {"knee": "prune.wanda 2; surgery 4"}) == {"knee": "prune.wanda 1, now prune.wanda 2"}
    assert moved_on(THEN, TODAY | {"cliff": "quantize.gptq 2; surgery 4"}) == {"cliff": "none, now quantize.gptq 2"}
    assert moved_on(THEN, {"attention": "surgery 5"}) == {}, "claims that were not measured"


def test_written_results_are_held_against_the_code_of_today_and_the_exit_status_shows_it(tmp_path, capsys):
    def asked():
        with pytest.raises(SystemExit) as ended:
            main(output=tmp_path, age=True)
        assert aged(tmp_path)[0] is ended.value.code
        said = capsys.readouterr()
        assert said.err == ""
        return ended.value.code, said.out

    assert asked() == (Exit.FAILED, f"There are no results in {tmp_path}.\n")
    listed = claims()
    requests = {name: request(name) for name in jobs_of(listed)}
    rulings = [Ruling("a cpu", one.id, "a rule", versions_of(one, requests), "refuted") for one in listed]
    told = {one.claim: Told(Finding("refuted", "It is not."), one) for one in rulings}
    write(tmp_path, listed, Results(told, {}), requests)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert asked()[0] == Exit.OK
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    older = [
        dataclasses.replace(one, versions=one.versions.replace(f"surgery {SURGERY_VERSION}", "surgery 0"))
        for one in rulings
    ]
    told = {one.claim: Told(Finding("refuted", "It is not."), one) for one in older}
    write(tmp_path, listed, Results(told, {}), requests)
    assert asked() == (Exit.RULE_FAILS, f"surgery 0, now surgery {SURGERY_VERSION}: {', '.join(told)}\n")
