"""The command that repeats a surface."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from app.web import describe
from app.web.reproduce_options import numeral, threshold_options


def surface_command(request: Mapping[str, Any], text: str | None) -> str | None:
    """`hemostat surface`, its knobs written into their steps; None where the text has no option."""
    if text is None:
        return None
    candidate = request.get("candidate") or {}
    steps = describe.with_knobs(candidate.get("recipe") or (), request.get("knobs") or ())
    lines = [
        f"hemostat surface --reference {shlex.quote(str((request.get('reference') or {}).get('model', '')))}",
        f"--candidate {shlex.quote(str(candidate.get('model', '')))}",
    ]
    lines += [f"--recipe {shlex.quote(json.dumps(step))}" for step in steps]
    contour = request.get("contour") or {}
    if contour.get("level") is not None:
        lines.append(f"--contour {contour.get('measure', 'kl')}={numeral(contour['level'])}")
    elif contour.get("measure", "kl") != "kl":
        lines.append(f"--contour {contour['measure']}=1.05")
    if request.get("margin") is not None:
        lines.append(f"--margin {numeral(request['margin'])}")
    if request.get("orders") == "both":
        lines.append("--both-orders")
    if request.get("storage", "sparse") != "sparse":
        lines.append(f"--storage {shlex.quote(str(request['storage']))}")
    lines.append(f"--text {text} --window {request.get('window', 512)} --seed {request.get('seed', 0)}")
    lines += threshold_options(request)
    return " \\\n  ".join(lines)
