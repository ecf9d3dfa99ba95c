"""What a request holds as options of the command line; None where it has no option for it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

from app.contracts.text import CORPUS_NAMES

Json = dict[str, Any]
_UNSAID: Final[dict[str, Json]] = {  # what the command line's text argument leaves at these values
    "self": {"temperature": 1.0},
    "hub": {"config": None, "split": "test", "revision": None, "documents": 100, "domain": "text"},
}


def numeral(value: float) -> str:
    """A number that is read back as the same one, short where that is no other."""
    short = f"{value:g}"
    return short if float(short) == value and "e" not in short else repr(value)


def threshold_options(request: Mapping[str, Any]) -> list[str]:
    """`--threshold`, one for each class that the request names."""
    return [f"--threshold {name}={numeral(value)}" for name, value in (request.get("thresholds") or {}).items()]


def task_options(request: Mapping[str, Any]) -> list[str] | None:
    """`--task`, one for each task of the request; None where a comma in a path or name has no place there."""
    lines = []
    for task in request.get("tasks") or ():
        given = {key: value for key, value in task.items() if value is not None}
        source = given.pop("source", None)
        if source == "shipped":
            lines.append(f"--task shipped{':' + str(given['items']) if 'items' in given else ''}")
            continue
        whose = f"harness:{given.pop('task', '')}" if source == "harness" else given.pop("format", "")
        words = [f"{whose}:{given.pop('path', '')}", *(f"{key}={given[key]}" for key in given)]
        if any("," in word for word in words):
            return None
        lines.append(f"--task {shlex.quote(','.join(words))}")
    return lines


def text_argument(text: Json) -> str | None:
    """A text source as `--text` takes it."""
    source = text.get("source")
    if source == "inline":
        return "DOCUMENTS.jsonl"
    if source == "shipped":
        corpus = CORPUS_NAMES.get(text.get("corpus", "evaluation"))
        return f"{corpus}:{text['documents']}" if corpus and text.get("documents") else corpus
    if source not in _UNSAID or any(text.get(key, default) != default for key, default in _UNSAID[source].items()):
        return None
    if source == "self":
        return f"self:{text.get('tokens', 8192)}"
    column = text.get("column", "text")
    return shlex.quote(f"hub:{text.get('dataset', '')}" + (f":{column}" if column != "text" else ""))
