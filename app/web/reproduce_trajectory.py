"""The command line of a trajectory job, to repeat it."""

from __future__ import annotations

import json
import shlex
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from app.contracts.decoding import DECODER, SHAPING, defaults
from app.kinds.trajectory.request import SHAPINGS
from app.web.reproduce_options import threshold_options

Json = dict[str, Any]
_NUMBERS: Final = (("--prompts", "prompts"), ("--prompt-tokens", "prompt_tokens"), ("--tokens", "tokens"))
_DEFAULTS: Final = [one.model_dump(mode="json") for one in defaults()]
_SHAPINGS: Final = [one.model_dump(mode="json") for one in SHAPINGS]


def trajectory_command(request: Json, text: str | None) -> str | None:
    """`hemostat trajectory`; what is not said has its default. `text` is the text source as an argument, None where the
    command line has none for it; so is the answer."""
    if text is None:
        return None
    reference, candidate = (_model(request.get(field)) for field in ("reference", "candidate"))
    lines = [
        f"hemostat trajectory --reference {shlex.quote(reference[0])}",
        f"--candidate {shlex.quote(candidate[0])}",
    ]
    lines += [f"--recipe {shlex.quote(json.dumps(step))}" for step in candidate[1]]
    for also in request.get("candidates") or ():
        alias, recipe = _model(also)
        lines.append(f"--also {shlex.quote(f'{alias}={json.dumps(recipe)}' if recipe else alias)}")
    decoders = request.get("decoders", _DEFAULTS)
    if decoders != _DEFAULTS:
        lines += [f"--decoder {_named(one, DECODER)}" for one in decoders]
    shapings = request.get("shapings", _SHAPINGS)
    if shapings != _SHAPINGS:
        lines += [f"--shaping {_named(one, SHAPING)}" for one in shapings] or ["--shaping none"]
    numbers = [f"{option} {request[name]}" for option, name in _NUMBERS if isinstance(request.get(name), int)]
    lines.append(" ".join([f"--text {text}", *numbers, f"--seed {request.get('seed', 0)}"]))
    if request.get("chat"):
        lines.append("--chat")
    if request.get("store_text") is not None:
        lines.append("--store-text" if request["store_text"] else "--no-store-text")
    lines += threshold_options(request)
    return " \\\n  ".join(lines)


def _model(value: object) -> tuple[str, list[Json]]:
    known = value if isinstance(value, dict) else {}
    return str(known.get("model", "")), list(known.get("recipe") or ())


def _named(written: Json, kind: TypeAdapter[Any]) -> str:
    """As `--decoder` and `--shaping` take it, what has its default left out."""
    try:
        told = kind.validate_python(written).model_dump(mode="json", exclude_defaults=True)
    except ValidationError:  # a newer version's
        told = dict(written)
    told.pop("name", None)
    values = ",".join(f"{key}={json.dumps(value)}" for key, value in told.items())
    return shlex.quote(f"{written.get('name')}:{values}" if values else str(written.get("name")))
