"""Tasks reports made of synthetic answers, for tests of what draws and checks reports. No model is behind them."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from app.kinds.tasks.report import TasksReport
from app.kinds.tasks.view import verdict
from tests.support.calibration_reports import BLOCKS
from tests.support.reports import HOSTILE, compare_report, draw

Json = dict[str, Any]


# Kinds of answers: their share of the items, and how much of the flips they have for it.
_KINDS = (
    ("numbers", "Numbers", "Digits of any script, with the separators between them.", 0.3, 2.0),
    (
        "names",
        "Names",
        "Words with a capital that the text writes so in the middle of a sentence somewhere.",
        0.12,
        0.9,
    ),
    (
        "punctuation",
        "Punctuation",
        "Tokens of punctuation and other signs alone, with or without white space.",
        1.0,
        1.0,
    ),
    ("rare", "Rare tokens", "Tokens that occur at most twice in the texts that were looked at.", 0.002, 1.0),
    ("none", "In no class", "What was looked at holds no token of any class.", 0.25, 0.4),
)


def item_classes(outcome: str, items: int, harmful: int, helpful: int, right: float, *, generated: bool) -> Json:
    """A task's items by class. Its intervals and p-values are rough, as those of the task."""

    def share(value: float) -> Json:
        return {"mean": value, "ci": (max(0.0, value - 0.06), min(1.0, value + 0.06))}

    rows = []
    for name, title, definition, part, lift in _KINDS:
        count = max(1, round(part * items))
        flipped = [min(count // 2, round(part * lift * flips)) for flips in (harmful, helpful)]
        rest, rate = items - count, sum(flipped) / count
        few = count < 6
        unjudged = few or not rest
        difference = (flipped[1] - flipped[0]) / count
        p = 4e-5 if name == "numbers" and outcome == "worse" else 0.21
        rows.append(
            {
                "name": name,
                "title": title,
                "definition": definition,
                "items": count,
                "share": count / items,
                "reference": share(right),
                "candidate": share(max(0.0, right + difference)),
                "difference": {"mean": difference, "ci": (difference - 0.05, difference + 0.05)},
                "harmful": flipped[0],
                "helpful": flipped[1],
                "rate": share(rate),
                "rate_others": share((harmful + helpful - sum(flipped)) / rest) if rest else None,
                "share_of_flips": sum(flipped) / (harmful + helpful) if harmful + helpful else None,
                "fisher_p": None if unjudged else p,
                "fisher_p_holm": None if unjudged else min(1.0, 3 * p),
            }
        )
    return {
        "where": "key" if generated else "right_choice",
        "note": f"Looked at is {'the file’s right answer' if generated else 'the right choice'}.",
        "classes": rows,
        "absent": ["Code", "JSON structure", "Tool names"],
    }


def task(
    name: str,
    outcome: str,
    *,
    items: int = 1000,
    harmful: int = 60,
    helpful: int = 12,
    right: float = 0.62,
    form: str = "hellaswag",
    stored: bool = True,
    prediction: str = "seen",
    text: str = "Cooking: Anna puts a pot of water on the stove. After a few minutes the water",
) -> Json:
    """One task. Its intervals and p-values are rough, and in proportion to its flips."""
    both_right = round(right * items) - harmful
    difference, half = (helpful - harmful) / items, 1.96 * (harmful + helpful + 1) ** 0.5 / items
    rate = (harmful + helpful) / items
    reference, candidate = right, right + difference
    generated = form in {"gsm8k", "humaneval"}
    metric = {"gsm8k": "exact_match_flexible", "humaneval": "pass_at_1", "mmlu": "acc"}.get(form, "acc_norm")
    p = {"worse": 3e-9, "better": 0.004, "equivalent": 0.44, "inconclusive": 0.21, "at_chance": 0.6}[outcome]

    def share(value: float) -> Json:
        return {"mean": value, "ci": (max(0.0, value - 0.03), min(1.0, value + 0.03))}

    examples = [
        {
            "item": f"{name}-{number:04d}",
            "direction": "harmful" if number < 4 else "helpful",
            "prompt": text if stored else None,
            "answer": "begins to boil." if stored else None,
            "reference": ("begins to boil." if number < 4 else "falls asleep.") if stored else None,
            "candidate": ("falls asleep." if number < 4 else "begins to boil.") if stored else None,
        }
        for number in range(6 if harmful else 0)
    ]
    told = prediction not in {"none"}
    return {
        "name": name,
        "format": form,
        "items": items,
        "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
        "source_fingerprint": hashlib.sha256(name.encode()).hexdigest(),
        "metric": metric,
        "reference": share(reference),
        "candidate": share(candidate),
        "difference": {"mean": difference, "ci": (difference - half, difference + half)},
        "metrics": [
            {
                "metric": metric,
                "reference": reference,
                "candidate": candidate,
                "harmful": harmful,
                "helpful": helpful,
                "difference": {"mean": difference, "ci": (difference - half, difference + half)},
            }
        ],
        "flips": {
            "both_right": both_right,
            "both_wrong": items - both_right - harmful - helpful,
            "harmful": harmful,
            "helpful": helpful,
            "rate": {"mean": rate, "ci": (0.85 * rate, 1.17 * rate + 0.002)},
        },
        "examples": examples,
        "mcnemar": {"p": p, "p_holm": min(1.0, 3 * p)},
        "equivalence": {
            "margin": 0.02,
            "p": 0.003 if outcome == "equivalent" else 0.61,
            "p_holm": 0.009 if outcome == "equivalent" else 1.0,
            "ci90": (difference - 0.84 * half, difference + 0.84 * half),
            "equivalent": outcome == "equivalent",
        },
        "detectable": {
            "difference": 0.021 if items > 100 else None,
            "flip_rate": 0.05,
            "source": "predicted" if prediction == "seen" else "assumed",
            "at_measured_rate": 0.024 if items > 100 else None,
        },
        "chance": {
            "accuracy": 0.0 if generated else 0.25,
            "p_reference": 0.31 if outcome == "at_chance" else 1e-20,
            "p_candidate": 0.52 if outcome == "at_chance" else 1e-12,
            "reference_at_chance": outcome == "at_chance",
            "candidate_at_chance": outcome == "at_chance",
        },
        "kl": None if generated else {"mean": 0.21, "ci": (0.18, 0.24), "clusters": "documents"},
        "prediction": {
            "status": prediction,
            "rate": 0.068 if told else None,
            "interval": (0.03, 0.14) if told else None,
            "sentence": "6.8 % of 1,000 items are expected to flip (95 % prediction interval 3 to 14 %), from 18 "
            "runs of 4 tasks, at 0.004 to 1.2 nats."
            if told
            else "Nothing is predicted: no run to learn from has been seen. Jobs of kind tasks on other candidates "
            "add to what is seen.",
        },
        "outcome": outcome,
        "shortened": 0,
        "token_classes": item_classes(outcome, items, harmful, helpful, right, generated=generated),
    }


def harness_task(one: Json, metric: str, *, shots: int = 0) -> Json:
    """The same by a definition of lm-evaluation-harness."""
    kept = {name: value for name, value in one.items() if name != "format"}
    told = {"task": "gsm8k" if one["format"] == "gsm8k" else one["name"], "version": "0.4.13", "task_version": "1.0"}
    metrics = [found | {"metric": metric} for found in one["metrics"]]
    return kept | {"metric": metric, "metrics": metrics, "harness": told | {"shots": shots}}


def tasks_report(*tasks: Json, harness: tuple[Json, ...] = (), runs: int = 18, mean: float = 0.31) -> Json:
    """A report as JSON data, valid by its contract."""
    measured = compare_report(draw(mean=mean, documents=48), store_text=False)
    kept = ("job", "severity", "decision", "tokens", "documents", "windows", "noise_floor", "provenance", *BLOCKS)
    kl = [0.004 * 1.38**number for number in range(runs)]
    level = 0.05 / (len(tasks) + len(harness))

    def levelled(found: tuple[Json, ...]) -> list[Json]:
        return [one | {"detectable": one["detectable"] | {"level": level}} for one in found]

    report = {name: measured[name] for name in kept} | {
        "schema": "hemostat.report/1",
        "kind": "tasks",
        "verdict": "",
        "tasks": levelled(tasks),
        "harness_tasks": levelled(harness),
        "class_multiplicity": "Each interval is a 95 % one of its own. p values are adjusted over the 3 kinds (Holm)."
        if any(one["token_classes"].get("classes") for one in (*tasks, *harness))
        else "",
        "seen": [
            {
                "task": f"task {number % 4}",
                "kl": one,
                "rate": min(0.5, 0.11 * one**0.5 * (1 + 0.2 * (number % 3))),
                "items": 400,
            }
            for number, one in enumerate(kl)
        ],
        "curve": {
            "items": tasks[0]["items"],
            "kl": kl,
            "rate": [0.13 * one**0.5 for one in kl],
            "low": [0.06 * one**0.5 for one in kl],
            "high": [0.27 * one**0.5 for one in kl],
        }
        if runs
        else None,
        "not_tested": [
            {"code": "free_running_generation", "text": "text generated freely"},
            {"code": "other_tasks", "text": "tasks other than these"},
        ],
        "request": {
            "kind": "tasks",
            "reference": {"model": "smollm2-135m"},
            "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
            "tasks": [
                {"source": "shipped", "items": None},
                {"source": "file", "format": "arc", "path": "a b/arc.jsonl", "items": 500, "shots": 0, "metric": "acc"},
            ],
            "text": {"source": "shipped", "documents": 24},
            "margin": 0.02,
            "shown": 5,
            "window": 512,
            "seed": 3,
            "store_text": True,
        },
    }
    made = TasksReport.model_validate(report)
    made = made.model_copy(update={"verdict": verdict(made)})
    checked: Json = json.loads(made.model_dump_json())
    return checked


@cache
def tasks_variants() -> dict[str, Json]:
    """One report for each situation that a page must be able to show. Made once: do not change them."""
    return {
        "several": tasks_report(
            task("hellaswag", "worse"),
            task("arc", "equivalent", harmful=14, helpful=12, items=2376),
            task("mmlu", "at_chance", form="mmlu", right=0.26, harmful=210, helpful=204),
            task(
                "gsm8k", "inconclusive", form="gsm8k", right=0.08, harmful=9, helpful=4, items=300, prediction="outside"
            ),
            task("humaneval", "better", form="humaneval", right=0.12, harmful=1, helpful=11, items=164),
        ),
        "one": tasks_report(task("example", "equivalent", harmful=4, helpful=5)),
        "harness": tasks_report(
            task("example", "equivalent", harmful=4, helpful=5),
            harness=(
                harness_task(task("arc_easy", "worse"), "acc"),
                harness_task(
                    task("sums", "inconclusive", form="gsm8k", stored=False), "exact_match,strict-match", shots=5
                ),
            ),
        ),
        "no-text": tasks_report(task("arc", "worse", stored=False), task("mmlu", "inconclusive", form="mmlu")),
        "not-told": tasks_report(
            task("example", "equivalent", harmful=4, helpful=5)
            | {
                "token_classes": {
                    "where": None,
                    "note": "Nothing was looked at: the choices are the same in every item, or letters.",
                }
            }
        ),
        "first": tasks_report(
            task("example", "inconclusive", items=60, harmful=3, helpful=0, prediction="none"), runs=0
        ),
        "no-flips": tasks_report(task("example", "equivalent", harmful=0, helpful=0), runs=0),
        "identical": tasks_report(
            task("example", "equivalent", harmful=0, helpful=0, prediction="none"), mean=0.0, runs=0
        ),
        "hostile": tasks_report(task("x" * 64, "worse", text="".join(HOSTILE))),
    }
