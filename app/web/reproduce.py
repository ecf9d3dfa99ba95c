"""The two commands that repeat a job: over HTTP and on the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from app.contracts.report import Report
from app.contracts.request import Thresholds
from app.kinds.attribute.request import LEVELS
from app.kinds.calibrate.request import CALIBRATORS, CalibrateRequest
from app.kinds.compare.request import ToolCallRun
from app.kinds.mitigate.request import TREATMENTS
from app.web.reproduce_options import numeral, task_options, text_argument, threshold_options
from app.web.reproduce_surface import surface_command
from app.web.reproduce_sweep import sweep_command
from app.web.reproduce_trajectory import trajectory_command

Json = dict[str, Any]
# The page stands by itself and cannot know where a service listens: as the command line, it asks the environment, and
# takes the address with a slash at its end too. A shell has no one expansion with both a default and a cut.
DEFAULT = ': "${HEMOSTAT_URL:=http://127.0.0.1:8321}"'
SERVICE = "${HEMOSTAT_URL%/}"


@dataclass(frozen=True)
class Reproduction:
    """Commands for a POSIX shell, and what has to be supplied by hand for them to work.

    `cli` is None where the command line has no option for something that the request asks.
    """

    curl: str
    cli: str | None
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
    return Reproduction(curl=curl, cli=_command(request), missing=tuple(missing))


def _one_field_a_line(body: Json) -> str:
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in body.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _request(report: Report) -> Json:
    """The request itself where the report carries it, else what the provenance tells of it."""
    if report.request is not None:
        known = {
            key: value
            for key, value in report.request.items()
            if key not in {"metadata", "dry_run", "timeout_s"} and value is not None and value != {}
        }
    else:
        origin = report.provenance
        known = {
            "kind": report.kind,
            "reference": {"model": origin.reference.model},
            "candidate": {"model": origin.candidate.model, "recipe": list(origin.candidate.recipe)},
            "text": {"source": origin.protocol.text_source.split(maxsplit=1)[0].rstrip(":,") or "shipped"},
            "window": origin.protocol.window,
            "seed": origin.seed,
            "precision": origin.precision,
            "thresholds": report.decision.thresholds.model_dump(),
        }
    if known.get("thresholds") == Thresholds().model_dump():
        known.pop("thresholds")
    if not isinstance(known.get("text"), dict):
        known["text"] = {"source": "shipped"}
    return known


def _command(request: Json) -> str | None:
    command = _command_of_kind(request)
    if command is None:
        return None
    overlap = " --allow-overlap" if request.get("allow_overlap") else ""
    # A knob changes the candidate: no sweep is a self-check.
    check = " --self-check" if request.get("self_check") and "knobs" not in request else ""
    return command + check + overlap


def _command_of_kind(request: Json) -> str | None:
    of_kind: dict[str, Callable[[Json], str | None]] = {
        "calibrate": _calibrate_command,
        "mitigate": _mitigate_command,
        "attribute": _attribute_command,
        "surface": lambda turned: surface_command(turned, text_argument(_dict(turned.get("text")))),
        "sweep": lambda swept: sweep_command(swept, text_argument(_dict(swept.get("text")))),
        "tasks": _tasks_command,
        "trajectory": lambda body: trajectory_command(body, text_argument(_dict(body.get("text")))),
    }
    own = of_kind.get(str(request.get("kind")))
    if own is not None:
        return own(request)
    text = text_argument(_dict(request.get("text")))
    calls = request.get("generate_tool_calls") or None
    if text is None or not (calls is None or _has_defaults(calls)):
        return None
    reference = _dict(request.get("reference"))
    candidate = _dict(request.get("candidate"))
    lines = [
        f"hemostat compare --reference {shlex.quote(str(reference.get('model', '')))}",
        f"--candidate {shlex.quote(str(candidate.get('model', '')))}",
    ]
    lines += [f"--recipe {shlex.quote(json.dumps(step))}" for step in candidate.get("recipe") or ()]
    lines.append(f"--text {text} --window {request.get('window', 512)} --seed {request.get('seed', 0)}")
    if request.get("precision", "fast") != "fast":
        lines.append(f"--precision {shlex.quote(str(request['precision']))}")
    lines += threshold_options(request)
    if "store_text" in request:
        lines.append("--store-text" if request["store_text"] else "--no-store-text")
    if calls is not None:
        lines.append("--generate-tool-calls")
    return " \\\n  ".join(lines)


def _has_defaults(calls: object) -> bool:
    """Whether tool calls are asked for as the option asks."""
    try:
        return calls is True or ToolCallRun.model_validate(calls) == ToolCallRun()
    except ValidationError:  # a newer version's
        return False


def _calibrate_command(request: Json) -> str | None:
    """`hemostat calibrate`; what is not said has its default."""
    if request.get("sampling", _SAMPLING) != _SAMPLING:
        return None
    lines = [
        f"hemostat calibrate --reference {shlex.quote(str(_dict(request.get('reference')).get('model', '')))}",
        f"--candidate {shlex.quote(str(_dict(request.get('candidate')).get('model', '')))}",
    ]
    steps = _dict(request.get("candidate")).get("recipe") or ()
    lines += [f"--recipe {shlex.quote(json.dumps(step))}" for step in steps]
    for option, source in (("--text", request.get("text")), ("--test-text", request.get("test_text"))):
        if isinstance(source, dict):
            argument = text_argument(source)
            if argument is None:
                return None
            lines.append(f"{option} {argument}")
    lines += [f"--fit-domain {shlex.quote(str(name))}" for name in _list(request.get("fit_domains"))]
    calibrators = _list(request.get("calibrators"))
    if tuple(calibrators) != CALIBRATORS:
        lines += [f"--calibrator {shlex.quote(str(name))}" for name in calibrators]
    lines += [
        f"{option} {numeral(request[name])}" for option, name in _NUMBERS if isinstance(request.get(name), int | float)
    ]
    if request.get("deployment"):
        lines.append(f"--deployment {shlex.quote(str(request['deployment']))}")
    lines += threshold_options(request)
    return " \\\n  ".join(lines)


def _attribute_command(request: Json) -> str | None:
    """`hemostat attribute`; what is not said has its default."""
    text = text_argument(_dict(request.get("text")))
    if text is None:
        return None
    candidate = _dict(request.get("candidate"))
    lines = [
        f"hemostat attribute --reference {shlex.quote(str(_dict(request.get('reference')).get('model', '')))}",
        f"--candidate {shlex.quote(str(candidate.get('model', '')))}",
    ]
    lines += [f"--recipe {shlex.quote(json.dumps(step))}" for step in candidate.get("recipe") or ()]
    levels = _list(request.get("levels"))
    if tuple(levels) != LEVELS:
        lines += [f"--level {shlex.quote(str(level))}" for level in levels]
    if request.get("layers"):
        lines.append(f"--layers {'+'.join(map(str, _list(request['layers'])))}")
    names = ("tokens", "budget", "top", "twins", "window", "seed")
    lines.append(
        f"--text {text} " + " ".join(f"--{name} {numeral(request[name])}" for name in names if name in request)
    )
    if "restore" not in _list(request.get("directions")):
        lines.append("--no-restore")
    if request.get("internals") is False:
        lines.append("--no-internals")
    lines += threshold_options(request)
    return " \\\n  ".join(lines)


def _mitigate_command(request: Json) -> str | None:
    """`hemostat mitigate`; what is not said has its default."""
    lines = [
        f"hemostat mitigate --reference {shlex.quote(str(_dict(request.get('reference')).get('model', '')))}",
        f"--candidate {shlex.quote(str(_dict(request.get('candidate')).get('model', '')))}",
    ]
    steps = _dict(request.get("candidate")).get("recipe") or ()
    lines += [f"--recipe {shlex.quote(json.dumps(step))}" for step in steps]
    for option, name in (("--text", "text"), ("--test-text", "test_text"), ("--calibration", "calibration")):
        source = request.get(name)
        if isinstance(source, dict):
            argument = text_argument(source)
            if argument is None:
                return None
            lines.append(f"{option} {argument}")
    for option, name in (("--bytes", "bytes"), ("--bits", "bits_per_weight"), ("--added-latency", "added_latency")):
        limit = _dict(request.get("budget")).get(name)
        if isinstance(limit, int | float):
            lines.append(f"{option} {numeral(limit)}")
    treatments = _list(request.get("treatments"))
    if tuple(treatments) != TREATMENTS:
        lines += [f"--treatment {shlex.quote(str(name))}" for name in treatments]
    for option, name in _MITIGATE_NUMBERS:
        if isinstance(request.get(name), int):
            lines.append(f"{option} {request[name]}")
    if request.get("export") == "checkpoint":
        lines.append("--checkpoint")
    if "store_text" in request:
        lines.append("--store-text" if request["store_text"] else "--no-store-text")
    lines += threshold_options(request)
    return " \\\n  ".join(lines)


def _tasks_command(request: Json) -> str | None:
    """`hemostat tasks`; what is not said has its default."""
    reference, candidate = _dict(request.get("reference")), _dict(request.get("candidate"))
    lines = [
        f"hemostat tasks --reference {shlex.quote(str(reference.get('model', '')))}",
        f"--candidate {shlex.quote(str(candidate.get('model', '')))}",
    ]
    lines += [f"--recipe {shlex.quote(json.dumps(step))}" for step in candidate.get("recipe") or ()]
    asked = task_options(request)
    if asked is None:
        return None
    lines += asked
    text = text_argument(_dict(request.get("text")))
    if text is None:
        return None
    lines.append(f"--text {text}")
    lines += [
        f"--{name} {numeral(request[name])}"
        for name in ("margin", "shown", "window", "seed")
        if request.get(name) is not None
    ]
    if "store_text" in request:
        lines.append("--store-text" if request["store_text"] else "--no-store-text")
    lines += threshold_options(request)
    return " \\\n  ".join(lines)


_SAMPLING: Final = [
    one.model_dump(mode="json") for one in CalibrateRequest.model_fields["sampling"].get_default() or ()
]
_MITIGATE_NUMBERS = (
    ("--calibration-windows", "calibration_windows"),
    ("--calibration-window", "calibration_window"),
    ("--trials", "trials"),
    ("--window", "window"),
    ("--seed", "seed"),
)
_NUMBERS = (("--tokens", "tokens"), ("--window", "window"), ("--seed", "seed"), ("--tolerance", "tolerance"))


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}
