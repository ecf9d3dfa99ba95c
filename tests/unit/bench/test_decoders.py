"""The bench of decoders: which jobs it runs, what it writes down of a report, and how long it says texts took."""

import json
import time
from pathlib import Path

import pytest

from app.contracts.decoding import DECODERS, defaults
from app.kinds.trajectory.report import TrajectoryReport
from app.kinds.trajectory.request import TrajectoryRequest
from app.settings import Settings
from tests.bench import decoders, processor
from tests.bench.decoders import PARTS, in_order, measured, of_job, request, rows_of
from tests.bench.decoders_job import Watch, groups
from tests.bench.rows import Row, read
from tests.support.trajectory_reports import trajectory_variants

VARIANTS = trajectory_variants()
SECONDS = dict.fromkeys(DECODERS, 2.0)
MACHINE = Row("decoders", "processor", "this one", 2.0, "cores")


def report(variant: str = "one") -> TrajectoryReport:
    return TrajectoryReport.model_validate(VARIANTS[variant])


def kept(home: Path, part: str) -> None:
    """A report as a job leaves it, of the part's decoders."""
    data = json.loads(json.dumps(VARIANTS["one"]))
    for name in ("cells", "reference_texts"):
        data[name] = [one for one in data[name] if one["decoder"] in PARTS[part]]
    (home / f"{part}.json").write_text(json.dumps({"seconds": 9.0, "writing": SECONDS, "report": data}))


def test_prompts_tokens_and_text_are_those_of_a_job_that_says_nothing_of_them() -> None:
    asked = TrajectoryRequest.model_validate(request(DECODERS))
    plain = TrajectoryRequest.model_validate(
        {name: value for name, value in request(DECODERS).items() if name not in ("decoders", "shapings")}
    )
    assert asked.decoders == plain.decoders == defaults()
    assert (asked.prompts, asked.tokens, asked.text, asked.seed) == (32, 128, plain.text, 0)


def test_each_decoder_has_the_numbers_of_its_cell_and_of_both_texts() -> None:
    whole = report()
    values = {row[1:3]: row.value for row in rows_of(whole, SECONDS)}
    for cell, texts in zip(whole.cells, whole.reference_texts, strict=True):
        assert values[cell.decoder, "kl_factor"] == cell.amplification.kl.value
        if cell.amplification.kl.ci is not None:
            low, high = cell.amplification.kl.ci
            assert (low, high) == tuple(values[cell.decoder, f"kl_factor{end}"] for end in ("_low", "_high"))
        assert values[cell.decoder, "kl_reference_text"] == cell.kl_reference_text.mean
        assert cell.amplification.kl_candidate_text is not None
        assert values[cell.decoder, "kl_candidate_both"] == cell.amplification.kl_candidate_text.mean
        assert values[cell.decoder, "first_different"] == cell.first_divergence.median
        assert values[cell.decoder, "edit_distance_128"] == cell.edit_distance[-1].distance.mean
        assert values[cell.decoder, "repetition_reference"] == texts.text.repetition["4"].mean
        assert values[cell.decoder, "repetition_candidate"] == cell.text.repetition["4"].mean
        assert values[cell.decoder, "seconds"] == 2.0


def test_what_there_is_not_has_no_row() -> None:
    """Of texts that are the same there is neither a factor nor a median of where they part."""
    metrics = {row.metric for row in rows_of(report("same"), SECONDS)}
    assert not metrics & {"kl_factor", "kl_factor_low", "first_different"}
    assert "kl_reference_text" in metrics


def test_of_a_job_its_seconds_are_told_phase_by_phase_and_its_noise_floor() -> None:
    whole = report()
    values = {row.metric: row.value for row in of_job("vllm", whole, 9.0)}
    assert values["seconds"] == 9.0
    assert {name for name in values if name.endswith("_seconds")} == {
        f"{phase}_seconds" for phase in whole.provenance.seconds
    }
    assert values["noise_floor"] == whole.noise_floor.kl.mean


def test_a_part_that_was_measured_is_read_and_not_run_again(tmp_path: Path) -> None:
    kept(tmp_path, "penalties")
    assert {row.case for row in measured(tmp_path, "penalties", {})} == {"fsd", "fsd_d", "job_penalties"}


def test_parts_stand_in_the_order_of_the_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "RESULTS", tmp_path / "decoders.csv")
    monkeypatch.setattr(processor, "here", lambda *_: MACHINE)
    for part in PARTS:
        kept(tmp_path, part)
    decoders.main(["--into", str(tmp_path), "diverse_beam", "beam", "vllm"])
    decoders.main(["--into", str(tmp_path), "samplers", "penalties", "contrastive"])
    found = read(tmp_path / "decoders.csv")
    assert found == in_order(found)
    assert list(dict.fromkeys(row.case for row in found))[:14] == ["processor", *DECODERS]
    assert found.count(MACHINE) == 1


def test_groups_follow_each_other_as_the_job_runs_them() -> None:
    """vLLM's decoders first, for each of two models; four beams make groups of eight prompts."""
    chosen = {one.name: one for one in defaults()}
    asked = [chosen[name] for name in ("beam", "greedy", "contrastive")]
    assert list(groups(asked, 10)) == 2 * ["greedy", "beam", "beam", "contrastive", "contrastive", "contrastive"]


def test_a_group_takes_from_its_first_step_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    watch = Watch(Settings(home=tmp_path), "job")

    def at(now: float, done: int) -> None:
        nonlocal clock
        clock = now
        watch.progress("generate", done, 20)

    at(0, 0)
    at(10, 2)  # after the start of an engine
    at(12, 6)
    watch.observe("tokens_scored", 6, role="generate")
    at(12, 10)  # what texts that ended early did not write
    at(12, 10)  # the next model, of which nothing is there yet
    at(30, 12)
    at(35, 20)
    watch.observe("tokens_scored", 10, role="generate")
    watch.observe("tokens_scored", 10, role="reference")
    assert watch.spans == [2.0, 5.0]


def test_a_group_whose_steps_could_not_be_told_takes_from_the_end_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    watch = Watch(Settings(home=tmp_path), "job")
    for now in (3.0, 7.0):
        watch.progress("generate", 20, 20)
        clock = now
        watch.observe("tokens_scored", 6, role="generate")
        watch.progress("generate", 20, 20)
    assert watch.spans == [3.0, 4.0]
