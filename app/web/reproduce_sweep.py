"""The command that repeats a sweep."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from app.web import describe
from app.web.reproduce_options import numeral, task_options, threshold_options


def sweep_command(request: Mapping[str, Any], text: str | None) -> str | None:
    """`hemostat sweep`, its knob written into its step; None where the text or a task has no option."""
    asked = task_options(request)
    if text is None or asked is None:
        return None
    candidate = request.get("candidate") or {}
    steps = describe.with_knobs(candidate.get("recipe") or (), request.get("knobs") or ())
    lines = [
        f"hemostat sweep --reference {shlex.quote(str((request.get('reference') or {}).get('model', '')))}",
        f"--candidate {shlex.quote(str(candidate.get('model', '')))}",
    ]
    lines += [f"--recipe {shlex.quote(json.dumps(step))}" for step in steps]
    lines.append(f"--text {text} --window {request.get('window', 512)} --seed {request.get('seed', 0)}")
    if request.get("budget") is not None:
        lines.append(f"--budget {request['budget']}")
    for name, (low, high) in (request.get("bounds") or {}).items():
        if low is not None or high is not None:
            ends = ["" if end is None else numeral(end) for end in (low, high)]
            lines.append(f"--bound {name}={ends[0]}..{ends[1]}")
    lines += [*asked, *threshold_options(request)]
    return " \\\n  ".join(lines)
