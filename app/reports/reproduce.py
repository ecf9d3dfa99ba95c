"""The two commands that repeat a job: over HTTP and on the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.commands.options import words_of
from app.commands.recipes import step_word
from app.contracts.report import Report
from app.contracts.request import Thresholds
from app.kinds.registry import KINDS, kind_of
from app.recipes.recipe import STEPS
from app.reports import describe
from app.reports.untrusted import visible

Json = dict[str, Any]
# The page is by itself and cannot know where a service listens: as the command line, it asks the environment, and
# takes the address with a slash at its end too. A shell has no one expansion with both a default and a cut.
DEFAULT = ': "${HEMOSTAT_URL:=http://127.0.0.1:8321}"'
SERVICE = "${HEMOSTAT_URL%/}"
# What another job on the same models and text has in common with this one.
_SAME = ("reference", "candidate", "text", "window", "allow_overlap")


@dataclass(frozen=True)
class Reproduction:
    """Commands for a POSIX shell, and what has to be supplied by hand for them to work."""

    curl: str
    cli: str
    missing: tuple[str, ...]


def reproduction(report: Report) -> Reproduction:
    """How to run the same comparison again."""
    request = _request(report)
    texts = {
        name: request[name] for name in ("text", "test_text", "calibration") if isinstance(request.get(name), dict)
    }
    sources = {text.get("source") for text in texts.values()}
    missing = []
    if '"source": "inline"' in json.dumps(request):
        missing.append(
            "The documents were sent with the request and are not in this report. Put the same ones in; "
            "DOCUMENTS.jsonl holds one {id, domain, text} a line."
        )
    if "file" in sources:
        missing.append("The text is a file or folder below the service's text root: the same one must lie there.")
    if any(_dict(task).get("source") in ("file", "harness") for task in _list(request.get("tasks"))):
        missing.append("The files of tasks are below the service's text root: the same ones must lie there.")
    blanks = {name: text | {"documents": "…"} for name, text in texts.items() if text.get("source") == "inline"}
    body = _one_field_a_line(request | blanks)
    curl = (
        f'{DEFAULT}\ncurl -sS "{SERVICE}/v1/diagnosis/jobs" \\\n'
        f"  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"
    )
    return Reproduction(curl=_visible(curl), cli=_visible(_command(request)), missing=tuple(missing))


def of_same_pair(
    report: Report, kind: str, *, recipe: Sequence[Mapping[str, Any]] | None = None, recipe_file: str = ""
) -> str:
    """The command of a job of another kind on the same models and text, in one line.

    With another `recipe`, if one is given; `recipe_file` is where its steps are, if they are too long for a line.
    """
    known = _request(report)
    pair = {name: known[name] for name in _SAME if name in known}
    if recipe is not None:
        pair["candidate"] = _dict(pair["candidate"]) | {"recipe": list(recipe)}
    return _visible(_command(pair | {"kind": kind}, recipe_file).replace(" \\\n  ", " "))


def _visible(command: str) -> str:
    """Line by line: what the request holds is not this program's."""
    return "\n".join(map(visible, command.split("\n")))


def _one_field_a_line(body: Json) -> str:
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in body.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _request(report: Report) -> Json:
    """The request that the report carries, without what has its default."""
    known = {
        key: value
        for key, value in (report.request or {}).items()
        if key not in {"metadata", "dry_run", "timeout_s"} and value is not None and value != {}
    }
    if known.get("thresholds") == Thresholds().model_dump():
        known.pop("thresholds")
    return known if kind_of(known.get("kind")) else known | {"kind": report.kind}


def _command(request: Json, recipe_file: str = "") -> str:
    """The command of the request's kind; what is not said has its default."""
    candidate, reference = _dict(request.get("candidate")), str(_dict(request.get("reference")).get("model", ""))
    other = str(candidate.get("model", ""))
    steps = describe.with_knobs(candidate.get("recipe") or (), _list(request.get("knobs")))
    models = [reference] if steps and other == reference else [reference, other]
    written = [f"@{recipe_file}"] if recipe_file else [step_word(_said(step)) for step in steps]
    words = [["--recipe", one] for one in written]
    words += words_of(KINDS[request["kind"]].request, request)
    lines = [shlex.join(["hemostat", request["kind"], *models]), *map(shlex.join, words)]
    return " \\\n  ".join(lines)


def _said(step: Json) -> Json:
    """A step without what its class has by default."""
    known = STEPS[step["type"]].model_fields if step.get("type") in STEPS else {}
    kept = [name for name in step if name == "type" or name not in known or known[name].default != step[name]]
    return {name: step[name] for name in kept}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}
