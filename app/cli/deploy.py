"""`hemostat deploy`: what is served."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.client import Client
from app.cli.configuration import settings
from app.cli.once import Commands
from app.cli.options import AsJson, Url, finite
from app.cli.output import err, out, print_json
from app.cli.service import connect
from app.commands.finite import require_finite
from app.commands.places import Word, Words
from app.commands.recipes import parse_recipe
from app.commands.shapes import pairs
from app.contracts.deployment import DeploymentRequest
from app.deployments.words import NO_AGENT, event_line, event_style, state_style
from app.reports import describe

Json = dict[str, Any]
deploy_app = Commands(help="Deployments of a running service: candidates that are served.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name or id of a deployment.")]
Reason = Annotated[str, typer.Option(help="Reason, recorded in the deployment's event log.")]
_PATH = "/v1/deployments"
# What sets the fields of a deployment at the prompt.
WORDS: Final[Words] = {
    **{(field,): Word(f"--{field.replace('_', '-')}") for field in DeploymentRequest.model_fields},
    ("name",): Word("NAME"),
    ("model", "recipe"): Word("--recipe", "steps"),
    ("shadow_tokens_per_second",): Word("--shadow-tokens"),
    ("sampling",): Word("--sampling", "keyed"),
    ("metadata",): Word("--metadata", "keyed"),
}
AGENT_S: Final = 3.0  # an agent looks for new deployments every second


def _at(name: str, what: str = "") -> str:
    """The path of a deployment, or of something of it. What a name may not hold stays part of the name: `a#b` is not
    `a`."""
    path = f"{_PATH}/{quote(name, safe='')}"
    return f"{path}/{what}" if what else path


@deploy_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name that clients send as `model`.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Alias of the model that is modified and served.")],
    reference: Annotated[
        str | None, typer.Option("--reference", "-r", help="Alias of the unmodified model; default: the model's own.")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="One step, repeated for more: quantize.rtn:bits=4, or JSON, or @file.json."),
    ] = None,
    repair: Annotated[
        str | None,
        typer.Option(help="Mitigate or compare job: its low-rank repair is served beside packed weights."),
    ] = None,
    calibration: Annotated[str, typer.Option(help="auto, frozen or off.")] = "auto",
    version: Annotated[str | None, typer.Option(help="Calibration profile to serve from the start.")] = None,
    shadow_rate: Annotated[
        float | None, typer.Option(callback=finite, help="Share of requests that are scored again.")
    ] = None,
    shadow_tokens: Annotated[
        float | None, typer.Option(callback=finite, help="Most tokens per second that are scored again.")
    ] = None,
    drift_threshold: Annotated[
        float | None, typer.Option(callback=finite, help="Drift limit: mean KL in nats per token.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(callback=finite, help="Probability of ever raising a false drift alarm.")
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="Serving processes.")] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Context, tokens; default: the model's own, at most 4,096.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Also run verified decoding.")] = False,
    sampling: Annotated[
        list[str] | None,
        typer.Option("--sampling", help="temperature=0.7, top_p=0.9 …, of requests that name none; repeated for more."),
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option("--metadata", help="key=value; repeated for more.")] = None,
    *,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Serve a model. It answers as soon as it is ready, while its calibration is fitted."""
    given: Json = {
        "repair": repair,
        "version": version,
        "shadow_rate": shadow_rate,
        "shadow_tokens_per_second": shadow_tokens,
        "drift_threshold": drift_threshold,
        "alpha": alpha,
        "replicas": replicas,
        "max_model_len": max_model_len,
        "sampling": _sampling(sampling),
    }
    body: Json = {
        "name": name,
        "model": {"model": model, "recipe": parse_recipe(recipe or [])},
        "reference": {"model": reference or model},
        "calibration": calibration,
        "verify": verify,
        "metadata": pairs(metadata, "--metadata"),
    } | {key: value for key, value in given.items() if value is not None}
    with connect(url, settings()) as client:
        made = client.call("POST", _PATH, json=body)
        if not as_json:
            made = _taken_up(client, made)
    _show(made, as_json=as_json)
    if not as_json:
        err.print(f"[dim]Follow it: hemostat deploy events {escape(name)} --follow[/]")


def _taken_up(client: Client, made: Json) -> Json:
    """The new deployment once its agent has seen it, which takes a second or two; as it is where none has by then."""
    deadline = time.monotonic() + AGENT_S
    while NO_AGENT in made["reason"] and time.monotonic() < deadline:
        time.sleep(0.25)
        made = client.call("GET", _at(made["id"]))
    return made


@deploy_app.command("list")
def list_deployments(*, url: Url = None, as_json: AsJson = False) -> None:
    """Deployments, oldest first."""
    with connect(url, settings()) as client:
        page = client.call("GET", _PATH)
    if as_json:
        print_json(page)
        return
    table = Table(box=None, header_style="bold")
    for heading in ("name", "state", "replicas", "serves", "drift", "served KL raw → calibrated", "recipe", "reason"):
        table.add_column(heading, overflow="fold", no_wrap=heading in {"name", "state"})
    for one in page["data"]:
        ready = sum(replica["role"] == "serve" and replica["state"] == "ready" for replica in one["running"])
        table.add_row(
            escape(one["name"]),
            _state(one["state"]),
            f"{ready}/{one['replicas']}",
            one["active_version"],
            (one["shadow"] or {}).get("drift", "–"),
            _divergence(one),
            escape(describe.recipe(one["model"]["recipe"]) or "–"),
            escape(_short(one["reason"] or one["fit_reason"] or "–")),
        )
    out.print(table if page["data"] else "No deployments. Make one: hemostat deploy create NAME --model ALIAS …")


@deploy_app.command()
def show(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """One deployment with its replicas."""
    with connect(url, settings()) as client:
        found = client.call("GET", _at(name))
    _show(found, as_json=as_json)


@deploy_app.command("set")
def change(
    name: Name,
    calibration: Annotated[str | None, typer.Option(help="auto, frozen or off.")] = None,
    shadow_rate: Annotated[
        float | None, typer.Option(callback=finite, help="Share of requests that are scored again.")
    ] = None,
    shadow_tokens: Annotated[
        float | None, typer.Option(callback=finite, help="Most tokens per second that are scored again.")
    ] = None,
    drift_threshold: Annotated[
        str | None, typer.Option(help="Drift limit: mean KL in nats per token; `auto`: from the served profile.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(callback=finite, help="Probability of ever raising a false drift alarm.")
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="Serving processes.")] = None,
    sampling: Annotated[
        list[str] | None,
        typer.Option("--sampling", help="temperature=0.7 …; repeated; replaces all; `none` removes them."),
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option("--metadata", help="key=value; repeated; replaces all.")] = None,
    *,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Change a deployment while it runs. Options that you leave out keep their values."""
    given: Json = {
        "calibration": calibration,
        "shadow_rate": shadow_rate,
        "shadow_tokens_per_second": shadow_tokens,
        "alpha": alpha,
        "replicas": replicas,
        "sampling": {} if sampling == ["none"] else _sampling(sampling),
        "metadata": pairs(metadata, "--metadata") if metadata else None,
    }
    body = {key: value for key, value in given.items() if value is not None}
    if drift_threshold is not None:
        body["drift_threshold"] = None if drift_threshold == "auto" else _float(drift_threshold, "--drift-threshold")
    with connect(url, settings()) as client:
        changed = client.call("PATCH", _at(name), json=body)
    _show(changed, as_json=as_json)


def _sampling(given: list[str] | None) -> Json | None:
    """Whole numbers stay whole: the service takes `top_k` as one."""
    if not given:
        return None
    found = pairs(given, "--sampling")
    return {
        name: int(value) if value.removeprefix("-").isdecimal() else _float(value, f"--sampling {name}={value}")
        for name, value in found.items()
    }


def _float(text: str, option: str) -> float | str:
    try:
        found = float(text)
    except ValueError:
        return text  # the service says what it may be
    require_finite(found, option)
    return found


@deploy_app.command()
def promote(name: Name, version: str, *, reason: Reason = "", url: Url = None, as_json: AsJson = False) -> None:
    """Serve this calibration version at once, without a trial."""
    _act(name, "promote", {"version": version, "reason": reason}, url, as_json=as_json)


@deploy_app.command()
def rollback(
    name: Name,
    *,
    to: Annotated[str | None, typer.Option(help="Version; default: the previous one, else identity.")] = None,
    reason: Reason = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the previous calibration version."""
    _act(name, "rollback", {"to": to, "reason": reason}, url, as_json=as_json)


@deploy_app.command()
def freeze(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """Keep the active calibration version: the service no longer promotes or rolls back."""
    _act(name, "freeze", None, url, as_json=as_json)


@deploy_app.command()
def unfreeze(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """Let the service promote and roll back again."""
    _act(name, "unfreeze", None, url, as_json=as_json)


def _act(name: str, what: str, body: Json | None, url: str | None, *, as_json: bool) -> None:
    with connect(url, settings()) as client:
        found = client.call("POST", _at(name, what), json=body)
    _show(found, as_json=as_json)


@deploy_app.command()
def delete(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """Stop serving: replicas finish their answers, then the deployment is deleted. Profiles stay."""
    with connect(url, settings()) as client:
        left = client.call("DELETE", _at(name))
    if as_json:
        print_json(left or {"name": name, "state": "deleted"})
    else:
        out.print(f"{escape(name)} {'finishes its answers, then it is deleted' if left else 'is deleted'}")


@deploy_app.command()
def events(
    name: Name,
    *,
    after: Annotated[int, typer.Option(help="Number of the last event that you have.")] = 0,
    limit: int = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C, or until it is deleted.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """What happened to a deployment, oldest first. With --json --follow: one JSON object per line."""
    with connect(url, settings()) as client:
        if not follow:
            page = client.call("GET", _at(name, "events"), params={"after": after, "limit": limit})
            if as_json:
                print_json(page)
                return
            for event in page["data"]:
                _print_event(event["id"], event)
            if page["has_more"]:
                out.print(f"[dim]More: hemostat deploy events {escape(name)} --after {page['last_id']}[/]")
            return
        _follow(client, name, after, as_json=as_json)


def _follow(client: Client, name: str, after: int, *, as_json: bool) -> None:
    for number, event in client.follow(_at(name, "events"), after):
        if as_json:
            typer.echo(json.dumps({"id": int(number)} | event, ensure_ascii=False))
        else:
            _print_event(number, event)


def _print_event(number: int | str, event: Json) -> None:
    style = event_style(event)
    line = escape(event_line(event))
    out.print(f"[dim]{number:>4}  {_time(event['at'])}[/]  {f'[{style}]{line}[/]' if style else line}", soft_wrap=True)


def _show(one: Json, *, as_json: bool) -> None:
    if as_json:
        print_json(one)
        return
    threshold = (one["shadow"] or {}).get("threshold") or one["drift_threshold"]
    previous = f" (before: {one['previous_version']})" if one["previous_version"] else ""
    since = f", since {_time(one['activated_at'])}" if one["activated_at"] else ""
    rows = {
        "deployment": f"[bold]{escape(one['name'])}[/]  [dim]{one['id']}[/]",
        "state": _state(one["state"]) + (f": {escape(one['reason'])}" if one["reason"] else ""),
        "model": escape(one["model"]["model"]),
        "recipe": escape(describe.recipe(one["model"]["recipe"]) or "–"),
        "reference": escape(one["reference"]["model"]),
        "repair": f"of {one['repair']}, beside packed weights" if one["repair"] else "–",
        "calibration": f"{one['calibration']}, serves {one['active_version']}{since}{previous}",
        "fit": escape(_fit(one)),
        "promotions": f"{one['promotions']}, rollbacks {one['rollbacks']}",
        "shadow": f"{one['shadow_rate']:.2%} of requests, at most {one['shadow_tokens_per_second']:g} tokens/s",
        "sampling": ", ".join(f"{name} {value:g}" for name, value in one["sampling"].items() if value is not None)
        or "–",
        "drift": escape(_drift(one, threshold)),
        "served KL": _divergence(one),
        "verified": escape(_verified(one)),
    }
    table = Table(box=None, show_header=False)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", value)
    out.print(table)
    if one["running"]:
        processes = Table(box=None, header_style="bold")
        for heading in ("process", "state", "host", "device", "pid", "versions", "url"):
            processes.add_column(heading, overflow="fold")
        for replica in one["running"]:
            why = f": {escape(replica['reason'])}" if replica["reason"] else ""
            versions = ", ".join(replica["versions"]) if replica["role"] == "serve" else "–"
            processes.add_row(
                escape(replica["id"]),
                _state(replica["state"]) + why,
                escape(replica["host"]) or "–",
                escape(replica["device"]) or "–",
                str(replica["pid"]),
                versions,
                replica["url"] or "–",
            )
        out.print(processes)


def _state(state: str) -> str:
    style = state_style(state)
    return f"[{style}]{state}[/]" if style else state


def _fit(one: Json) -> str:
    if one["fit_reason"]:  # which names its job: that may be another one than the deployment's own
        return str(one["fit_reason"])
    return f"job {one['fit_job']}" if one["fit_job"] else "–"


def _drift(one: Json, threshold: float | None) -> str:
    shadow = one["shadow"]
    if not shadow:
        return "nothing scored yet"
    limit = f", threshold {threshold:.3f} nats" if threshold else ""
    if shadow.get("quiet_limit"):
        limit += f", quiet limit {shadow['quiet_limit']:.3f}"
    why = f": {shadow['reason']}" if shadow["reason"] else ""
    needed = f" of {shadow['e_value_needed']:.3g}" if shadow.get("e_value_needed") else ""
    return f"{shadow['drift']}{limit}, e-value {shadow['e_value']:.3g}{needed}, alarms {shadow['alarms']}{why}"


def _verified(one: Json) -> str:
    running = [replica for replica in one["running"] if replica["role"] == "verify"]
    if not running:
        return "its process does not run" if one["verify"] else "off"
    why = running[0]["reason"]
    return f"{running[0]['state']}{f': {why}' if why else ''}"


def _divergence(one: Json) -> str:
    found = (one["shadow"] or {}).get("divergence")
    if not found:
        return "–"
    raw, calibrated = found["raw"], found["calibrated"]
    return f"{raw['mean']:.3f} → {calibrated['mean']:.3f} nats ({found['tokens']:,} tokens)"


def _short(text: str, most: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
