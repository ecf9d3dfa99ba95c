"""The process that looks into models for others: `python -m app.kinds.looker`, a question and an answer a line, JSON.

It limits itself before it reads a file. MemoryError ends it: no one knows what is left undone then.
"""

import gc
import json
import os
import resource
import sys
import time
from functools import lru_cache
from math import ceil
from pathlib import Path
from traceback import extract_tb
from typing import Any, Final

from app.contracts.errors import HemostatError
from app.kinds.estimates import estimate
from app.kinds.preflight import check_request
from app.kinds.registry import requests
from app.models.checkpoint import fingerprint, inspect
from app.models.looking import MEMORY_BYTES
from app.models.pace import Pace
from app.models.registry import load_registry
from app.models.tokenizers import check_tokenizer
from app.settings import Settings

MOST_TOLD: Final = 2000  # characters of each part of an error: it quotes what strangers' files say


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """{"found": …}, {"error": …} of a `HemostatError`, or {"crash": …} for a fault of ours, by its type and line."""
    try:
        return {"found": _found(question)}
    except HemostatError as error:
        parts = {"detail": error.detail, "hint": error.hint, "pointer": error.pointer}
        return {"error": {"code": error.code} | {part: _cut(text) for part, text in parts.items()}}
    except MemoryError:
        os._exit(1)
    except Exception as error:
        place = extract_tb(error.__traceback__)[-1]
        return {"crash": f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"}


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TOLD else text[: MOST_TOLD - 1] + "…"


def _found(question: dict[str, Any]) -> Any:
    if question["what"] == "weights":
        return fingerprint(Path(question["path"]))
    if question["what"] == "model":
        return _described(Path(question["path"]), Path(question["tokenizer"]), question["name"])
    settings = _settings(question["settings"])
    request, registry = requests().validate_python(question["request"]), load_registry(settings.models_file)
    if question["what"] == "check":
        return check_request(request, registry, settings)
    here = None if question["pace"] is None else Pace(**question["pace"])
    return estimate(request, registry, settings, here).model_dump(mode="json")


def _described(path: Path, tokenizer: Path, name: str) -> str:
    info = inspect(path, name=name)
    check_tokenizer(tokenizer, info.vocabulary, name=name)
    shape = f"{info.layers} layers, {info.vocabulary:,} tokens"
    return f"{info.architecture}, {shape}, {info.scheme}, {info.bytes:,} bytes"


@lru_cache(maxsize=8)  # they take 16 ms to make
def _settings(text: str) -> Settings:
    return Settings(**json.loads(text))


def main() -> None:
    """Answers until its standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, this process goes first
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    gc.set_threshold(1_000_000)  # else looking for garbage is four fifths of the time that large files take
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        question = json.loads(line)
        until = ceil(time.process_time() + question["cpu_s"])
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
        told = answer(question)
        held = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers.write(json.dumps(told | {"held": held}).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
