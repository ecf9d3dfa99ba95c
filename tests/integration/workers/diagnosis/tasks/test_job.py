"""A tasks job from request to report, with a real engine on a tiny model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.tasks.report import AnyTaskResult, HarnessTaskResult, TasksReport
from app.reports.render import render
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.refusals import refused
from tests.support.tiny import make_tokenizer
from tests.support.tiny_jobs import RTN3, WORDS, Jobs, Json, body, document, validated
from workers.analysis.flips import runs as flip_runs
from workers.answering.answers import STOPS, cut, extract
from workers.answering.harness.running import Harnessed, NotScoredError
from workers.diagnosis.tasks.job import tasks
from workers.engine.room import EngineRoom

DOCUMENTS = [document(number, 40) for number in range(12)]


def question(number: int) -> Json:
    rng = np.random.default_rng(1000 + number)
    texts = [f"{a} {b}" for a, b in zip(rng.choice(WORDS, 4), rng.choice(WORDS, 4), strict=True)]
    return {
        "id": f"q{number}",
        "question": " ".join(rng.choice(WORDS, 8)),
        "choices": {"text": texts, "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[number % 4],
    }


QUESTIONS = [question(number) for number in range(24)]
SUMS = [{"question": f"{' '.join(WORDS[n : n + 4])} {n}?", "answer": f"#### {n}"} for n in range(6)]
# The test looks at the name alone, so that what a random model writes decides whether the program is one at all.
CODE = [
    {
        "prompt": f"def f{n}():\n    return {n}\n#",
        "test": f"def check(f):\n    assert f() == {n}",
        "entry_point": f"f{n}",
    }
    for n in range(4)
]


@pytest.fixture(scope="module")
def settings(
    tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, home_of: Callable[..., Settings]
) -> Settings:
    texts = tmp_path_factory.mktemp("texts")
    for name, rows in (("arc", QUESTIONS), ("gsm8k", SUMS), ("humaneval", CODE)):
        (texts / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home_of({"tiny": tiny("llama")}, text_root=texts, code_execution=True)


def request(**changes: Any) -> Any:
    asked = [
        {"source": "file", "format": "arc", "path": "arc.jsonl"},
        {"source": "file", "format": "gsm8k", "path": "gsm8k.jsonl", "max_tokens": 12},
        {"source": "file", "format": "humaneval", "path": "humaneval.jsonl", "max_tokens": 6},
    ]
    return validated(body("tasks", [RTN3], DOCUMENTS) | {"store_text": True, "tasks": asked} | changes)


def by_name(report: TasksReport) -> dict[str, AnyTaskResult]:
    return {result.name: result for result in report.results}


def answers(context: Context) -> list[Json]:
    return [json.loads(line) for line in (context.output / "answers.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def done(module_jobs: Jobs) -> tuple[TasksReport, Context]:
    return module_jobs.run(request()), module_jobs.context


def test_every_task_is_answered_and_the_counts_agree(done: tuple[TasksReport, Context]) -> None:
    report, context = done
    assert [result.name for result in report.tasks] == ["arc", "gsm8k", "humaneval"]
    assert report.divergence.kl.mean is not None
    assert report.divergence.kl.mean > 0
    lines = answers(context)
    for result in report.tasks:
        mine = [line for line in lines if line["task"] == result.name]
        right = [(line["reference"][result.metric], line["candidate"][result.metric]) for line in mine]
        assert len(mine) == result.items
        assert result.flips.harmful == sum(one and not other for one, other in right)
        assert result.flips.helpful == sum(other and not one for one, other in right)
        assert result.reference.mean == pytest.approx(sum(one for one, _ in right) / len(right))
        assert 0 <= result.mcnemar.p <= result.mcnemar.p_holm <= 1
    assert any(
        line.startswith("arc: 24 items are too few to show any difference at the assumed flip rate of 5 % (McNemar")
        for line in context.logs
    )
    assert {"tasks", "generate", "execute", "statistics"} <= set(context.phases)
    assert {"tokens.parquet", "answers.jsonl"} <= {path.name for path in context.output.iterdir()}
    gauges = {name for name, _, labels in context.samples if labels.get("task") == "arc"}
    assert gauges == {"task_accuracy_ratio", "task_accuracy_difference", "task_flip_ratio"}


def test_items_are_told_by_the_classes_of_their_answers(done: tuple[TasksReport, Context]) -> None:
    """Counted from the answers that were kept, and from the file."""
    report, context = done
    looked_at = {result.name: result.token_classes for result in report.tasks}
    assert {name: found and found.where for name, found in looked_at.items()} == {
        "arc": "right_choice",
        "gsm8k": "key",
        "humaneval": "question",
    }
    lines = answers(context)
    for result in report.tasks:
        found = result.token_classes
        assert found is not None
        mine = [line for line in lines if line["task"] == result.name]
        for one in found.classes:
            held = [
                line for line in mine if one.name in line["classes"] or (one.name == "none" and not line["classes"])
            ]
            right = [(line["reference"][result.metric], line["candidate"][result.metric]) for line in held]
            assert one.items == len(held)
            assert one.harmful == sum(first and not second for first, second in right)
            assert one.helpful == sum(second and not first for first, second in right)
    sums = looked_at["gsm8k"]
    assert sums is not None
    assert {one.name: one.fisher_p for one in sums.classes}["numbers"] is None
    assert "Which answers" in render(json.loads(report.model_dump_json()))


def test_likelihoods_are_those_of_transformers(done: tuple[TasksReport, Context], tiny: Callable[..., Path]) -> None:
    """float32 on the same bf16 weights; the engine runs in bf16, so they agree to its rounding."""
    _, context = done
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    tokenizer = make_tokenizer()
    differences = []
    for row, line in zip(QUESTIONS[:8], answers(context)[:8], strict=True):
        for text, told in zip(row["choices"]["text"], line["reference"]["logp"], strict=True):
            context_text = f"Question: {row['question']}\nAnswer:"
            before = tokenizer(context_text)["input_ids"]
            whole = tokenizer(f"{context_text} {text}")["input_ids"]
            assert whole[: len(before)] == before
            with torch.no_grad():
                logp = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            expected = sum(float(logp[at - 1, whole[at]]) for at in range(len(before), len(whole)))
            differences.append(told - expected)
    assert np.abs(differences).max() < 1.5
    assert np.abs(np.mean(differences)) < 0.3


def test_generated_answers_are_those_of_transformers_greedy(
    done: tuple[TasksReport, Context], tiny: Callable[..., Path]
) -> None:
    """Rounding may turn a near tie, and all after it; most of six answers stay."""
    _, context = done
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.bfloat16)
    tokenizer = make_tokenizer()
    same = 0
    lines = [line for line in answers(context) if line["task"] == "gsm8k"]
    for row, line in zip(SUMS, lines, strict=True):
        prompt = tokenizer(f"Question: {row['question']}\nAnswer:", return_tensors="pt")
        made = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        text = cut(tokenizer.decode(made, skip_special_tokens=True), STOPS["gsm8k"])
        said = extract(text, "exact_match_flexible")
        same += line["reference"]["said"] == (None if said == "[invalid]" else said)
    assert same >= 4


def test_the_harness_own_definitions_say_the_same_of_the_same_files(jobs: Jobs) -> None:
    """Two readers, two ways to score: the harness', and ours."""
    ours = request().tasks[:2]
    wanted = [
        *(one.model_dump() for one in ours),
        {"source": "harness", "task": "arc_easy", "path": "arc.jsonl", "metric": "acc_norm"},
        {
            "source": "harness",
            "task": "gsm8k",
            "path": "gsm8k.jsonl",
            "shots": 0,
            "max_tokens": 12,
            "name": "sums",
            "filter": "flexible-extract",
        },
    ]
    report = jobs.run(request(tasks=wanted))
    found = by_name(report)
    lines = answers(jobs.context)
    filters = {"exact_match_strict": "strict-match", "exact_match_flexible": "flexible-extract"}
    for mine, other, same in (
        ("arc", "arc_easy", {"acc": "acc", "acc_norm": "acc_norm"}),
        ("gsm8k", "sums", {name: f"exact_match,{theirs}" for name, theirs in filters.items()}),
    ):
        assert found[other].items == found[mine].items
        assert found[other].flips == found[mine].flips
        assert found[other].kl == found[mine].kl
        assert found[other].token_classes == found[mine].token_classes
        assert found[other].outcome == found[mine].outcome
        for one, two in zip(
            (line for line in lines if line["task"] == mine),
            (line for line in lines if line["task"] == other),
            strict=True,
        ):
            for side in ("reference", "candidate"):
                assert one[side].get("logp") == two[side].get("logp")
                assert one[side]["said"] == two[side]["said"]
                for name, theirs in same.items():
                    assert one[side][name] == two[side][theirs]
    sums = found["sums"]
    assert isinstance(sums, HarnessTaskResult)
    assert (sums.harness.task, sums.harness.shots) == ("gsm8k", 0)
    assert "lm-evaluation-harness 0.4.13" in render(json.loads(report.model_dump_json()))


def test_a_definition_that_does_not_fit_costs_no_pass(jobs: Jobs) -> None:
    wanted = [{"source": "harness", "task": "gsm8k", "path": "arc.jsonl", "shots": 0}]
    with pytest.raises(HemostatError, match="does not take the items"):
        jobs.run(request(tasks=wanted))
    assert jobs.context.phases == []


def test_a_definition_that_fails_on_what_a_model_said_loses_no_other_task(
    monkeypatch: pytest.MonkeyPatch, jobs: Jobs
) -> None:
    """The trial finds what can be found, so that the failure has to be made."""

    def fails(self: Harnessed, texts: Sequence[str]) -> None:
        raise NotScoredError(ErrorCode.INVALID_REQUEST, "its own code fails on an answer (ValueError)")

    monkeypatch.setattr(Harnessed, "texts_scored", fails)
    sums = {"source": "harness", "task": "gsm8k", "path": "gsm8k.jsonl", "shots": 0, "max_tokens": 4}
    arc = {"source": "file", "format": "arc", "path": "arc.jsonl"}
    report = jobs.run(request(tasks=[sums, arc]), "both")
    assert [result.name for result in report.results] == ["arc"]
    assert report.unscored == ("gsm8k",)
    assert "its own code fails" in next(one.facts["why"] for one in report.warnings if one.code == "not_scored")
    assert {line["task"] for line in answers(jobs.context)} == {"arc"}
    with pytest.raises(NotScoredError, match="its own code fails"):
        jobs.run(request(tasks=[sums]), "alone")


def test_code_is_run(done: tuple[TasksReport, Context]) -> None:
    """The completion goes on in a comment, so both models' programs pass unless a line break ends it."""
    report, context = done
    result = by_name(report)["humaneval"]
    assert result.metric == "pass_at_1"
    assert result.reference.mean > 0
    assert result.chance.accuracy == 0.0
    for line in answers(context):
        for side in (line["reference"], line["candidate"]):
            assert ("outcome" in side) == (line["task"] == "humaneval")
            if line["task"] == "humaneval":
                assert side["pass_at_1"] == (side["outcome"] == "passed")
                assert ("error" in side) == (side["outcome"] == "error")
                assert isinstance(side["said"], str), "the completion"


def test_the_run_is_remembered_unless_it_says_nothing(done: tuple[TasksReport, Context], settings: Settings) -> None:
    report, _ = done
    told = [result for result in report.tasks if result.outcome != "at_chance"]
    kept = flip_runs.read(settings.home)
    assert {run.task for run in kept} == {result.name for result in told}
    for run in kept:
        result = by_name(report)[run.task]
        assert (run.items, run.fingerprint) == (result.items, result.fingerprint)
        assert run.source == result.source_fingerprint == result.fingerprint
        assert run.flips == result.flips.harmful + result.flips.helpful
        assert run.kl == report.divergence.kl.mean
    assert all(result.prediction.status == "none" for result in report.tasks)


def test_a_model_against_itself_flips_nothing(settings: Settings, jobs: Jobs) -> None:
    kept = flip_runs.read(settings.home)
    report = jobs.run(request(candidate={"model": "tiny"}, self_check=True, tasks=request().tasks[:1]))
    (result,) = report.tasks
    assert (result.flips.harmful, result.flips.helpful) == (0, 0)
    assert result.kl is not None
    assert result.kl.mean == 0.0
    assert result.mcnemar.p == 1.0
    assert "not above zero" in result.prediction.sentence
    assert flip_runs.read(settings.home) == kept


def test_what_earlier_runs_say_is_told(
    done: tuple[TasksReport, Context], settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    """Three runs of the task are known, and are few."""
    fingerprint = by_name(done[0])["arc"].fingerprint

    def known(name: str, reference: str) -> Settings:
        home = tmp_path / name
        home.mkdir()
        (home / "models.toml").write_text((settings.home / "models.toml").read_text())
        drawn = [
            flip_runs.Run(f"j{n}", "arc", fingerprint, 24, 3 + n, 0.5 * (n + 1), reference, f"c{n}") for n in range(3)
        ]
        flip_runs.add(home, drawn)
        return settings.model_copy(update={"home": home, "models": home / "models.toml"})

    elsewhere = known("other", "")
    report = tasks(request(tasks=request().tasks[:1]), Context(elsewhere, tmp_path / "b"), room)
    part = [one.model_copy(update={"items": 12}) for one in request().tasks[:1]]
    fewer = tasks(request(tasks=part), Context(known("strange", "another"), tmp_path / "c"), room).tasks[0]
    assert fewer.fingerprint != fewer.source_fingerprint == fingerprint
    assert fewer.prediction.status == "outside"
    assert "none of these runs is of this reference model" in fewer.prediction.sentence
    told = report.tasks[0].prediction
    assert told.status in {"few", "outside"}
    assert told.interval is not None
    assert "reference model" not in told.sentence
    assert len(report.seen) == 3
    assert report.curve is not None
    assert "Flip rate against KL" in render(json.loads(report.model_dump_json()))


def test_an_attempt_that_was_lost_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    with monkeypatch.context() as quick:
        # every program is over before its runner asks
        quick.setattr("workers.answering.sandbox.runner._POLL_S", 60.0)
        jobs.stopped(request(), stop_in="execute")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("answers that were given are asked for again")

    monkeypatch.setattr("workers.answering.generating._answers", never)
    monkeypatch.setattr("workers.distributions.divergence.Divergence.__call__", never)
    report = jobs.run(request())
    assert [result.name for result in report.tasks] == ["arc", "gsm8k", "humaneval"]


@pytest.mark.parametrize("phase", ["tasks", "generate"])
def test_it_stops_when_it_is_told_to_and_says_before_any_answer_what_each_task_can_show(
    settings: Settings, phase: str, jobs: Jobs
) -> None:
    """Other items than those of any other test, so that none has an answer in the store."""
    changed = [dict(QUESTIONS[0]) | {"question": f"{phase} lazy dog"}, *QUESTIONS]
    assert settings.text_root is not None
    (settings.text_root / f"{phase}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    first = {"source": "file", "format": "arc", "path": f"{phase}.jsonl"}
    lost = jobs.stopped(request(tasks=[first, request().tasks[1]]), stop_in=phase)
    told = [line for line in lost.logs if "80 % power" in line]
    assert [line.split(" items")[0] for line in told] == ["arc: 25", "gsm8k: 6"]
    assert all("2.5 % level: 5 % divided by 2 tasks" in line for line in told)


def test_a_faulty_file_costs_no_pass(jobs: Jobs) -> None:
    with refused(ErrorCode.TASK_INVALID):
        jobs.run(request(tasks=[{"source": "file", "format": "gsm8k", "path": "arc.jsonl"}]))
    assert jobs.context.phases == []


def test_text_is_left_out_where_it_may_not_be_stored(jobs: Jobs) -> None:
    report = jobs.run(request(store_text=None, tasks=request().tasks[:1]))
    assert all(example.prompt is None and example.candidate is None for example in report.tasks[0].examples)
    assert all("said" not in line["reference"] for line in answers(jobs.context))
