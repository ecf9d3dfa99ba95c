"""A job in a list, on the page and in the terminal alike: what came out, of what, over what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.contracts.job import TERMINAL
from app.contracts.report import SEVERITIES
from app.kinds.registry import KINDS
from app.reports import describe
from app.reports import format as fmt
from app.reports.untrusted import visible


def outcome(job: Mapping[str, Any]) -> str:
    """What the job answers, if that is more than a class, and then the class of the damage and of what it is. A
    question mark means that it is not decided; a dash that the job has none (yet)."""
    severity, classes = job["severity"], job.get("classes") or ()
    if not severity:
        return fmt.NONE
    found = "no damage that matters" if severity == "none" and len(classes) < 2 else decided(severity, classes)
    kind = KINDS.get(job["kind"])
    found = f"{found} {kind.class_of if kind else ''}".strip()
    return visible("; ".join(filter(None, (job.get("answer"), found))))


def decided(severity: str, classes: Sequence[str]) -> str:
    """The class, or those that the verdict names where it is not decided, with a question mark."""
    if len(classes) < 2:
        return severity
    # All of them say no more than the mean's.
    return f"{severity if len(classes) == len(SEVERITIES) else ' or '.join(classes)}?"


def times(job: Mapping[str, Any], now: float | None) -> dict[str, str]:
    """When it was created, when its first attempt began and its last one ended, and how long that took. `now`, in
    Unix seconds, is the end of one that still runs."""
    began, ended = job.get("started_at"), job.get("finished_at")
    until = ended if job["status"] in TERMINAL else now
    moments = (("created", job["created_at"]), ("started", began), ("ended", ended))
    told = {name: fmt.moment(at) for name, at in moments if at is not None}
    if began is not None and until is not None:
        told["took in all"] = fmt.duration(max(0.0, until - began)) + ("" if ended else " so far")
    return told


def recipe(job: Mapping[str, Any]) -> str:
    """What was done to the candidate, knobs with all their values; a dash where nothing was."""
    steps = describe.with_knobs(job["candidate"]["recipe"], job.get("knobs") or ())
    return visible(describe.recipe(steps)) or fmt.NONE


def candidate(job: Mapping[str, Any]) -> str:
    """The candidate's alias, and what was done to it."""
    model = visible(job["candidate"]["model"])
    return f"{model} · {recipe(job)}" if job["candidate"]["recipe"] else model


def text(job: Mapping[str, Any]) -> str:
    """What was scored, and in which windows: `shipped:60, window 512`. Where the class is measured on another text than
    was fitted or chosen by, it comes second: `calibration → shipped`."""
    told, window = " → ".join(_named(one) for one in (job["text"], job.get("test_text")) if one), job.get("window")
    return f"{told}, window {window}" if window else told


def _named(text: str) -> str:
    kind, _, many = text.partition(":")
    if kind == "inline" and many.isdecimal():
        return f"{fmt.counted(int(many), 'document')} sent along"
    return visible(text)
