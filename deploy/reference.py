"""docs/reference, made from the code: `make docs` writes the pages, a test compares them."""

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from typer._click.core import Command, Context
from typer.core import TyperGroup
from typer.main import get_command

from app.cli.main import app as commands
from app.contracts import report as report_contract
from app.contracts.deployment import Deployment
from app.contracts.errors import CATALOGUE
from app.contracts.job import JobStatus
from app.contracts.metric import COMPARISON, PREFIX
from app.contracts.notices import DiffNotice, ThresholdNotice, Untested, Warned
from app.deployments import examples
from app.error_guide import GUIDE
from app.jobs.store import Statistics
from app.kinds.registry import KINDS
from app.main import create_app
from app.memory import Usage
from app.recipes.base import Calibrated, Step
from app.recipes.notices import StepNotice
from app.recipes.recipe import STEPS
from app.settings import Settings
from app.telemetry.metrics import Telemetry as ApiTelemetry
from deploy import report_blocks
from workers.engine.serving.counters import Counters
from workers.telemetry import Telemetry as WorkerTelemetry
from workers.telemetry import catalogue
from workers.telemetry_shadow import SHADOW_CATALOGUE, ShadowTelemetry
from workers.telemetry_verify import VerifyTelemetry

FOLDER: Final = Path(__file__).parents[1] / "docs" / "reference"
NOTE: Final = "<!-- Made by `make docs` from the code. Do not edit. -->"
NONE: Final = "–"
REPORTS: Final = """\
How to read one: [Read a report](../report.md). [Divergence](../divergence.md) defines the distances.
`hemostat schema KIND` prints the JSON Schema of a kind. Ignore unknown fields."""
# Errors that any route may answer with.
EVERYWHERE: Final = ("unauthorized", "not_permitted", "host_not_allowed", "rate_limited", "internal")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; a bar in a cell is text."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(text: object) -> str:
    """In code style; nothing: a dash."""
    return f"`{text}`" if str(text) else NONE


# --- command line


def hemostat() -> TyperGroup:
    """The command itself."""
    group = get_command(commands)
    if not isinstance(group, TyperGroup):
        raise TypeError("hemostat has no commands")
    return group


def leaves(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every command with its words after `hemostat`, in the order of the help."""
    for name in group.list_commands(Context(group)):
        command = group.commands[name]
        if isinstance(command, TyperGroup):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def command_line() -> str:
    """Every command with its arguments and options."""
    parts = ["How to choose and combine commands: [Use the command line](../cli.md)."]
    for path, command in leaves(hemostat()):
        context = Context(command, info_name=" ".join(("hemostat", *path)))
        records = [record for one in command.params if (record := one.get_help_record(context))]
        parts += [f"## hemostat {' '.join(path)}", (command.help or "").strip()]
        parts += [table(("argument or option", "meaning"), [(code(name), text) for name, text in records])]
    return "\n\n".join(parts)


# --- HTTP


def routes() -> str:
    """Every operation with what it takes and answers."""
    with tempfile.TemporaryDirectory() as home:
        page = create_app(Settings(home=Path(home))).openapi()
    parts = [
        "`GET /openapi.json` has the schemas. How to use the routes: [Use the HTTP API](../api.md).",
        f"Any route can also answer with {_linked(EVERYWHERE)}.",
        "Errors of OpenAI's routes have [OpenAI's form](../gateway.md#errors).",
    ]
    for path, operations in sorted(page["paths"].items()):
        for method, operation in operations.items():
            parts += [f"## {method.upper()} {path}", f"{operation['summary']}.", operation.get("description", "")]
            named = operation.get("parameters", [])
            rows = [(code(one["name"]), one["in"], one.get("description", NONE)) for one in named]
            parts += [table(("parameter", "in", "meaning"), rows)] if rows else []
            answers = [(status, _answer(status, answer)) for status, answer in sorted(operation["responses"].items())]
            parts += [table(("status", "answer"), [one for one in answers if one[1]])]
    return "\n\n".join(filter(None, parts))


def _answer(status: str, answer: Mapping[str, Any]) -> str:
    problems = answer.get("content", {}).get("application/problem+json", {}).get("examples")
    if problems is None:
        return (
            "" if "application/json" in answer.get("content", {}) and int(status) >= 400 else str(answer["description"])
        )
    return _linked(name for name in problems if name not in EVERYWHERE)


def _linked(names: Iterable[str]) -> str:
    return ", ".join(f"[`{name}`](errors.md#{name})" for name in names)


# --- settings and steps


def kind(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(kind(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(code(one) for one in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema:
        return "object"
    limits = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
    bounds = [text.format(_plain(schema[name])) for name, text in limits.items() if name in schema]
    return " ".join([schema.get("type", "object"), *bounds[:1]]) + "".join(f", {one}" for one in bounds[1:])


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def fields(model: type[BaseModel], left_out: Iterable[str] = ()) -> list[tuple[str, str, str, str]]:
    """Name, values, default and meaning of each field."""
    schema = model.model_json_schema()
    rows = []
    for name, field in model.model_fields.items():
        if name not in left_out:
            default = (
                "required" if field.is_required() else code(_written(field.get_default(call_default_factory=True)))
            )
            rows.append((code(name), kind(schema["properties"][name]), default, field.description or NONE))
    return rows


def _written(value: object) -> str:
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_unset=True)
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def settings() -> str:
    """Every setting."""
    rows = [
        (
            f"`HEMOSTAT_{name.strip('`').upper()}`",
            values,
            default if name != "`home`" else "in `$XDG_DATA_HOME`",
            meaning,
        )
        for name, values, default, meaning in fields(Settings)
    ]
    head = ("variable", "values", "default", "meaning")
    return f"Every process reads these environment variables when it starts.\n\n{table(head, rows)}"


def steps() -> str:
    """Every step of a recipe with its own fields; those that steps share come first."""
    head = ("field", "values", "default", "meaning")
    shared = [*fields(Step, ["type"]), *fields(Calibrated, Step.model_fields)]
    parts = [
        "Methods, order and measured costs: [Modify a model with a recipe](../recipes.md).",
        "## Fields of many steps",
        "Every step takes `layers` and `modules`. The other fields belong to steps that read text.",
        table(head, shared),
    ]
    for name, step in sorted(STEPS.items()):
        rows = [row for row in fields(step, ["type"]) if row not in shared]
        text = "It also takes the fields of steps that read text." if issubclass(step, Calibrated) else ""
        parts += [f"## {name}", _paragraphs(step.__doc__ or ""), text, table(head, rows) if rows else ""]
    return "\n\n".join(filter(None, parts))


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


# --- errors


def errors() -> str:
    """Every code of an error."""
    lines = [
        "Read [the form of an error](../api.md#errors) first.",
        "`hemostat errors CODE` shows one code, and so does `/errors/CODE` of a running service.",
    ]
    for name, error in CATALOGUE.items():
        lines.append(f"## {name}\n\n{error.status}: {error.title}. {GUIDE[name]}")
    return "\n\n".join(lines)


# --- notices


def notices() -> str:
    """Every code of a notice, with its text."""
    rooms = {"Not tested, in reports of every kind": Untested, "Warnings of several kinds": Warned}
    rooms |= {"Steps of a recipe": StepNotice, "Thresholds": ThresholdNotice, "Differences of reports": DiffNotice}
    rooms |= {f"Kind {name}": kind.notices for name, kind in KINDS.items() if kind.notices}
    head = "Items of `warnings` and `not_tested` of a report have a code, `facts`, and a text that is made of them."
    parts = [
        f"## {title}\n\n{table(('Code', 'Text'), ((code(one.code), _facts(one.value)) for one in room))}"
        for title, room in rooms.items()
    ]
    return "\n\n".join([head, *parts])


def _facts(text: str) -> str:
    """The text of a notice, each fact by its name alone."""

    def named(found: re.Match[str]) -> str:
        name, form = f"{{{found[1]}}}", found[2] or ""
        if form.startswith("#"):
            return f"{name} {form[1:]}s"
        if "|" in form:
            return form.split("|")[-1]
        return form.replace("*", name) if "*" in form else name

    return re.sub(r"\{(\w+)(?::((?:[^{}]|\{\w+\})*))?\}", named, text)


# --- metrics


def registries() -> dict[str, CollectorRegistry]:
    """Those of every process, as the code makes them, with something to show."""
    api = ApiTelemetry()
    api.queue.statistics = Statistics(by_status=dict.fromkeys(JobStatus, 0), oldest_queued_s=0.0, finished={})
    api.queue.memory, api.queue.free_bytes = Usage(1, 2), 1
    api.deployments.deployments = [Deployment.model_validate(examples.READY)]
    api.deployments.depths = {"bot": 1}
    api.gateway.watch("bot", lambda: 0, lambda: 0)
    return {
        "API": api.registry,
        "Worker": WorkerTelemetry().registry,
        "Shadow process": ShadowTelemetry("bot").registry,
        "Verifying process": VerifyTelemetry("bot").registry,
        "Engine of a replica": Counters("bot").registry,
    }


def metrics() -> str:
    """Every metric by the process that exports it."""
    known = {metric.exported: metric.values or {} for metric in (*catalogue(), *SHADOW_CATALOGUE)}
    parts = [
        "Each process serves `/metrics`: [Scrape the metrics](../metrics.md). *comparison* means the labels "
        "`reference`, `model` and `recipe`.",
    ]
    for process, registry in registries().items():
        rows = []
        for name, type_, labels, text in _families(registry):
            values = known.get(name, {})
            told = [f"`{label}`{_values(values.get(label, ()))}" for label in labels if label not in COMPARISON]
            told = ["comparison", *told] if set(COMPARISON) <= set(labels) else told
            rows.append((code(name), type_, "; ".join(told) or NONE, text))
        parts += [f"## {process}", table(("metric", "type", "labels", "meaning"), rows)]
    return "\n\n".join(parts)


def _values(values: Sequence[str]) -> str:
    return f" ({', '.join(values)})" if values else ""


def _families(registry: CollectorRegistry) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Name, type, labels and help of each of our families. Labels of a family without series are private."""
    for collector in registry._collector_to_names:
        for family in collector.collect():
            if not family.name.startswith(PREFIX):
                continue
            if isinstance(collector, MetricWrapperBase):
                labels = tuple(collector._labelnames)
            else:
                labels = tuple(family.samples[0].labels) if family.samples else ()
            name = family.name + ("_total" if family.type == "counter" else "")
            yield name, family.type, labels, family.documentation


# --- alerts


def alerts() -> str:
    """Every alert with its rule."""
    rows = []
    for file in sorted((FOLDER.parents[1] / "deploy" / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                name, url = rule["alert"], f"../../{rule['annotations']['runbook_url']}"
                after, severity = rule.get("for", "0s"), rule["labels"]["severity"]
                rows.append((f"[{name}]({url})", code(" ".join(rule["expr"].split())), after, severity))
    text = "Each alert links to its runbook. [The board](../board.md#alerts) says where you see them."
    return f"{text}\n\n{table(('alert', 'fires when', 'after', 'severity'), rows)}"


# --- reports


def reports() -> str:
    """Every field of every report: the blocks of several kinds first, then those of each kind."""
    owners = report_blocks.owners()
    headings = report_blocks.Headings(owners)
    parts = [REPORTS, _paragraphs((report_contract.__doc__ or "").partition("\n")[2])]
    for owner in dict.fromkeys((report_blocks.COMMON, *owners.values())):
        parts.append(f"## {owner[0].upper()}{owner[1:]}")
        for block in (block for block, of in owners.items() if of == owner):
            bases = ", ".join(headings.link(base) for base in report_blocks.bases(block))
            rows = report_blocks.rows(block, headings)
            parts += [f"### {headings.of(block)}", report_blocks.words(block)]
            parts += [f"It has the fields of {bases}."] if bases else []
            cells = 3 if any(meaning for *_, meaning in rows) else 2
            parts += [table(("field", "type", "meaning")[:cells], [row[:cells] for row in rows])] if rows else []
    return "\n\n".join(filter(None, parts))


PAGES: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "commands": ("Commands and options", command_line),
    "routes": ("Routes of the HTTP API", routes),
    "settings": ("Settings", settings),
    "errors": ("Errors", errors),
    "notices": ("Warnings and limitations", notices),
    "metrics": ("Metrics", metrics),
    "alerts": ("Alerts", alerts),
    "steps": ("Steps of a recipe", steps),
    "reports": ("Fields of a report", reports),
}


def pages() -> dict[str, str]:
    """Name of the file -> its text."""
    return {f"{name}.md": f"{NOTE}\n\n# {title}\n\n{make()}\n" for name, (title, make) in PAGES.items()}


def main() -> None:
    """Writes the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
