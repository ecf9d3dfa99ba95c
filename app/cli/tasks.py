"""`hemostat tasks`: does what is lost in the distributions matter for answers?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.configuration import settings
from app.cli.measuring import measure
from app.cli.options import AllowOverlap, AsJson, Candidate, Recipe, Reference, SelfCheck, Url, finite, number, pairs
from app.cli.output import Rule
from app.cli.recipes import compared, parse_recipe, parse_text
from app.contracts.errors import ErrorCode, HemostatError
from app.models.nearest import suggestion
from app.verdicts import Outcome

_NUMBERS = {"items", "shots", "max_tokens"}
_FIELDS = ("name", "items", "shots", "examples", "metric", "max_tokens")


class FailOn(StrEnum):
    """What ends with status 1."""

    WORSE = "worse"
    NOT_EQUIVALENT = "not-equivalent"


def tasks(
    reference: Reference,
    candidate: Candidate = None,
    recipe: Recipe = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="shipped[:ITEMS], or FORMAT:PATH[,key=value] of a file below the service's text root; formats: "
            "hellaswag, arc, mmlu, gsm8k, humaneval; keys: name, items, shots, examples, metric, max_tokens. "
            "Or harness:TASK:PATH[,key=value], TASK being a name of lm-evaluation-harness; also filter=. "
            "Repeated for more. Default: shipped."
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(callback=finite, help="Accuracy that counts as no difference: 0.02 is two points.")
    ] = 0.02,
    shown: Annotated[int, typer.Option(help="Examples of flips in either direction.")] = 5,
    text: Annotated[
        str | None,
        typer.Option(help="What KL is measured over, as in `hemostat compare`; default: the shipped evaluation text."),
    ] = None,
    window: Annotated[int, typer.Option(help="Tokens a window of that text.")] = 512,
    seed: int = 0,
    thresholds: Annotated[
        list[str] | None, typer.Option("--threshold", help="CLASS=NATS, for example severe=0.3; repeated for more.")
    ] = None,
    store_text: Annotated[bool | None, typer.Option(help="Keep text of flipped items in the report.")] = None,
    metadata_: Annotated[list[str] | None, typer.Option("--metadata", help="key=value; repeated for more.")] = None,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(help="worse: exit 1 where a task is worse. not-equivalent: exit 0 only where all are."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML report goes.")] = None,
    *,
    self_check: SelfCheck = False,
    allow_overlap: AllowOverlap = False,
    dry_run: Annotated[bool, typer.Option(help="Check everything, estimate the cost and what can be shown.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Answer items with both models: flips, exact tests, equivalence within a margin, and what KL made one expect."""
    request: dict[str, Any] = {
        "kind": "tasks",
        **compared(reference, candidate, parse_recipe(recipe or []), self_check=self_check),
        "tasks": [parse_task(one) for one in task or ["shipped"]],
        "margin": margin,
        "shown": shown,
        "text": parse_text(text),
        "window": window,
        "seed": seed,
        "allow_overlap": allow_overlap,
        "thresholds": {key: number(key, value) for key, value in pairs(thresholds, "--threshold").items()},
        "store_text": store_text,
        "metadata": pairs(metadata_, "--metadata"),
    }
    measure(
        request,
        settings(),
        rule=Rule(fail_on, lambda found: judge(found, fail_on)) if fail_on else None,
        url=url,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
    )


def parse_task(written: str) -> dict[str, Any]:
    """`shipped`, `shipped:60`, `FORMAT:PATH,key=value,…`, or `harness:TASK:PATH,key=value,…`. Raises
    INVALID_REQUEST."""
    form, _, rest = written.partition(":")
    if form == "shipped":
        return {"source": "shipped"} | ({"items": _whole("items", rest, written)} if rest else {})
    parsed: dict[str, Any] = {"source": "file", "format": form}
    fields: tuple[str, ...] = _FIELDS
    if form == "harness":
        task, _, rest = rest.partition(":")
        parsed = {"source": "harness", "task": task}
        fields = (*_FIELDS, "filter")
    parsed["path"], *options = rest.split(",")
    if not parsed["path"]:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--task {written!r} is none of shipped, FORMAT:PATH and harness:TASK:PATH",
            hint="for example: --task hellaswag:hellaswag_val.jsonl,items=500 or --task harness:piqa:piqa_val.jsonl",
        )
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"--task {written!r}: {option!r} is not key=value with a key of {', '.join(fields)}",
                hint="a comma cannot stand in a path here; send the job over HTTP then",
            )
        if key not in fields:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"--task {written!r}: there is no key {key!r}",
                hint=suggestion(key, fields),
            )
        parsed[key] = _whole(key, value, written) if key in _NUMBERS else value
    return parsed


def _whole(key: str, value: str, written: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--task {written!r}: {key} is {value!r}, not a whole number",
            hint="for example: shipped:50, or arc:FILE,items=200",
        ) from None


def all_results(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Tasks of a report, those of the harness last; reports of earlier versions have none."""
    return [*report["tasks"], *report.get("harness_tasks", ())]


def judge(found: dict[str, Any], rule: FailOn) -> Outcome:
    """How a report stands to the rule. A task at chance decides nothing: it fails no rule, and equivalence is not shown
    on it. One that is worse, yet within the margin, is equivalent. One that could not be scored leaves undecided what
    the others do not fail."""
    results, unscored = all_results(found), bool(found.get("unscored"))
    outcomes = {result["outcome"] for result in results}
    if rule is FailOn.WORSE:
        if "worse" in outcomes:
            return "fail"
        return "inconclusive" if unscored or outcomes == {"at_chance"} else "pass"
    if any(result["outcome"] == "worse" and not result["equivalence"]["equivalent"] for result in results):
        return "fail"
    within = all(result["equivalence"]["equivalent"] and result["outcome"] != "at_chance" for result in results)
    return "pass" if within and not unscored else "inconclusive"
