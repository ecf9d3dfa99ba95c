"""A sweep that asks tasks: the near-lossless point by both halves of the rule, with a real engine on a tiny model."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.kinds.sweep.lossless import Setting
from app.kinds.sweep.report import SweepReport
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.refusals import refused
from tests.support.tiny import make_tokenizer
from tests.support.tiny_jobs import WORDS, Jobs, Json, body, document, validated

DOCUMENTS = [document(number) for number in range(8)]
ARC = {"source": "file", "format": "arc", "path": "arc.jsonl"}
SUMS = {"source": "file", "format": "gsm8k", "path": "gsm8k.jsonl", "max_tokens": 4}
VALUES = [0.01, 0.3, 0.6, 0.9]


def liked(model: torch.nn.Module, row: Json) -> str:
    """The label of the choice that transformers in float32 gives the largest log-likelihood a character."""
    tokenizer = make_tokenizer()
    prompt = f"Question: {row['question']}\nAnswer:"
    scores = []
    for choice in row["choices"]["text"]:
        before, whole = tokenizer(prompt)["input_ids"], tokenizer(f"{prompt} {choice}")["input_ids"]
        with torch.no_grad():
            logp = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        told = range(len(before), len(whole))
        scores.append(sum(float(logp[at - 1, whole[at]]) for at in told) / len(choice))
    return str(row["choices"]["label"][int(np.argmax(scores))])


def questions(model: torch.nn.Module) -> list[Json]:
    """Questions whose right answer is what the reference says, so that all it can do is lose them."""
    rows = []
    for number in range(40):
        rng = np.random.default_rng(1000 + number)
        texts = [f"{a} {b}" for a, b in zip(rng.choice(WORDS, 4), rng.choice(WORDS, 4), strict=True)]
        row = {"question": " ".join(rng.choice(WORDS, 8)), "choices": {"text": texts, "label": ["A", "B", "C", "D"]}}
        rows.append(row | {"id": f"q{number}", "answerKey": liked(model, row)})
    return rows


@pytest.fixture(scope="module")
def settings(
    tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, home_of: Callable[..., Settings]
) -> Settings:
    texts = tmp_path_factory.mktemp("texts")
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    # Nobody who writes at random says 987654.
    sums = [{"question": f"{WORDS[n]} {n}?", "answer": "#### 987654"} for n in range(4)]
    for name, rows in (("arc", questions(model)), ("gsm8k", sums)):
        (texts / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home_of({"tiny": tiny("llama")}, text_root=texts)


def request(step: Json, *asked: Json) -> Any:
    return validated(body("sweep", [step], DOCUMENTS) | {"tasks": list(asked)})


PRUNED = {"type": "prune.magnitude", "sparsity": {"sweep": VALUES}}


@pytest.fixture(scope="module")
def swept(module_jobs: Jobs) -> tuple[SweepReport, Context]:
    return module_jobs.run(request(PRUNED, ARC, SUMS)), module_jobs.context


def test_settings_are_asked_from_the_strongest_down_until_one_loses_little(swept: tuple[SweepReport, Context]) -> None:
    report, context = swept
    rule, limit = report.near_lossless_rule, report.near_lossless
    assert rule is not None and limit is not None
    allowed = VALUES[: VALUES.index(limit.strongest) + 1]
    asked = [one.value for one in rule.answered]
    assert len(asked) > 1 and asked == allowed[::-1][: len(asked)]
    for one in rule.answered:
        arc, sums = one.tasks
        assert arc.items == 40 and arc.reference > 0.8
        # One task is not at chance, so that the mean is its loss.
        assert one.degradation is not None and one.degradation.mean is not None and one.degradation.ci is not None
        assert one.degradation.mean == pytest.approx((arc.reference - arc.candidate) / arc.reference)
        assert one.degradation.ci[0] < one.degradation.mean < one.degradation.ci[1]
        assert one.within is (one.degradation.mean <= 0.05)
        assert sums.loss is None and sums.reference == 0
    assert [one.within for one in rule.answered] == [False] * (len(asked) - 1) + [True]
    assert (rule.largest, rule.limited_by, rule.at_chance) == (Setting(value=asked[-1]), "tasks", ("gsm8k",))
    assert f"Near-lossless by both halves: up to sparsity {asked[-1]}, stopped by tasks" in report.verdict
    assert {"tasks", "generate"} <= set(context.phases)
    assert [one.text for one in report.not_tested if one.code == "other_tasks"] == [
        "Tasks other than arc, gsm8k: a model may lose there what it keeps here."
    ]
    assert SweepReport.model_validate_json(report.model_dump_json()) == report


def test_the_reference_answers_once(swept: tuple[SweepReport, Context]) -> None:
    report, context = swept
    rule = report.near_lossless_rule
    assert rule is not None
    looks = [name for name, _, labels in context.samples if labels.get("store") == "reference"]
    # The text and the choices; the choices again at each setting after the first.
    assert (looks.count("store_misses"), looks.count("store_hits")) == (2, len(rule.answered) - 1)


def test_a_tasks_job_at_the_same_setting_says_the_same(swept: tuple[SweepReport, Context], jobs: Jobs) -> None:
    rule = swept[0].near_lossless_rule
    assert rule is not None
    for one in rule.answered:
        recipe = [PRUNED | {"sparsity": one.value}]
        wanted = validated(body("tasks", recipe, DOCUMENTS) | {"tasks": [ARC]})
        (result,) = jobs.run(wanted, f"{one.value}").tasks
        arc = one.tasks[0]
        assert (arc.reference, arc.candidate) == (result.reference.mean, result.candidate.mean)
        assert (arc.harmful, arc.helpful) == (result.flips.harmful, result.flips.helpful)


def test_a_sweep_that_was_stopped_while_it_asked_finds_the_same(swept: tuple[SweepReport, Context], jobs: Jobs) -> None:
    jobs.stopped(request(PRUNED, ARC, SUMS), stop_in="tasks")
    report = jobs.run(request(PRUNED, ARC, SUMS))
    assert report.near_lossless_rule == swept[0].near_lossless_rule
    assert report.provenance.resumed_windows == len(VALUES) * report.windows


def asked(context: Context) -> tuple[int, int]:
    """(tokens of choices that went through a model, answers that were written) in an attempt: not what it found."""
    tokens = sum(
        value for name, value, labels in context.samples if (name, labels.get("role")) == ("tokens_scored", "tasks")
    )
    done = [count for phase, count, _ in context.steps if phase == "generate"]
    return int(tokens), sum(max(0, after - before) for before, after in pairwise(done))


def test_the_attempt_after_a_lost_one_asks_what_that_one_had_not_kept(
    swept: tuple[SweepReport, Context], jobs: Jobs
) -> None:
    rule = swept[0].near_lossless_rule
    assert rule is not None
    settings_asked, (tokens, texts) = len(rule.answered), asked(swept[1])
    # Every setting reads the same choices, and writes after the same four prompts; the reference does both once.
    assert tokens % (1 + settings_asked) == 0 and texts == 4 * (1 + settings_asked)
    each = tokens // (1 + settings_asked)
    lost = jobs.stopped(request(PRUNED, ARC, SUMS), stop=lambda context: context.phases.count("generate") > 1)
    # Stopped where the second setting is about to write. The reference's choices are in the store of the sweep before,
    # and its texts belong to the job.
    assert asked(lost) == (2 * each, 4 + 4)
    report = jobs.run(request(PRUNED, ARC, SUMS))
    assert report.near_lossless_rule == rule
    assert asked(jobs.context) == ((settings_asked - 2) * each, 4 * (settings_asked - 1))


def test_both_sides_of_a_harmless_value_have_their_own_point(jobs: Jobs) -> None:
    step = {"type": "norm.scale", "factor": {"sweep": [0.2, 0.999, 1.001, 4.0]}}
    report = jobs.run(request(step, ARC))
    assert report.near_lossless_rule is None
    for side, values in zip(report.sides, ([0.999, 0.2], [1.001, 4.0]), strict=True):
        rule = side.near_lossless_rule
        assert rule is not None and side.near_lossless is not None
        allowed = values[: values.index(side.near_lossless.strongest) + 1]
        asked = [one.value for one in rule.answered]
        assert asked == allowed[::-1][: len(asked)]
        assert rule.largest is not None and rule.answered[-1].within
        assert f"Near-lossless by both halves, {side.side} 1: " in report.verdict


def test_without_tasks_nothing_is_asked(jobs: Jobs) -> None:
    report = jobs.run(request(PRUNED))
    assert report.near_lossless_rule is None and "tasks" not in jobs.context.phases
    assert report.near_lossless is not None and "both halves" not in report.verdict


def test_a_faulty_file_costs_no_pass(jobs: Jobs) -> None:
    with refused(ErrorCode.TASK_INVALID, "/tasks/0/path"):
        jobs.run(request(PRUNED, SUMS | {"path": "arc.jsonl"}))
    assert jobs.context.phases == []


def test_a_step_may_not_have_looked_at_the_items(settings: Settings, jobs: Jobs) -> None:
    assert settings.text_root is not None
    rows = [json.loads(line) for line in (settings.text_root / "arc.jsonl").read_text().splitlines()]
    looked_at = [{"id": row["id"], "text": row["question"]} for row in rows]
    calibration = {"source": "inline", "documents": looked_at}
    step = {
        "type": "prune.wanda",
        "sparsity": {"sweep": [0.1, 0.2]},
        "calibration": calibration,
        "calibration_windows": 2,
        "calibration_window": 16,
    }
    with refused(ErrorCode.CALIBRATION_OVERLAP):
        jobs.run(request(step, ARC), "refused")
    allowed = request(step, ARC).model_copy(update={"allow_overlap": True})
    report = jobs.run(allowed, "allowed")
    assert any("40 scored items were also looked at" in warning for warning in report.warnings)
