"""Limits of what a request may ask for, and what is no text: checked before a replica sees it.

vLLM bounds less than one would like (`n` up to 16,384), turns strings into numbers and fetches the images of a message.
Each number here is checked for its type as well; what is not named passes through and is the replica's to judge.
"""

import math
from typing import Any, Final

from app.gateway import constraints
from app.gateway.errors import invalid

MAX_SEQUENCES: Final = 128  # of one request: prompts × n
MAX_TOKENS: Final = 1_048_576

# field -> lowest and highest integer
_INTEGERS: Final[dict[str, tuple[int, int]]] = {
    "n": (1, 16),
    "best_of": (1, 16),
    "max_tokens": (0, MAX_TOKENS),
    "max_completion_tokens": (0, MAX_TOKENS),
    "max_output_tokens": (0, MAX_TOKENS),
    "min_tokens": (0, MAX_TOKENS),
    "truncate_prompt_tokens": (-1, MAX_TOKENS),
    "top_logprobs": (0, 20),
    "prompt_logprobs": (0, 20),
    "max_tool_calls": (0, 128),
    "top_k": (-1, 2**31 - 1),
    "seed": (-(2**63), 2**63 - 1),
}
# field -> lowest and highest number; each field's own narrower limits are the replica's
_NUMBERS: Final[dict[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0, 1e4),
    "length_penalty": (-1e4, 1e4),
}
# field -> most entries
_LISTS: Final[dict[str, int]] = {
    "messages": 2048,
    "tools": 128,
    "stop_token_ids": 256,
    "bad_words": 256,
    "allowed_token_ids": 262_144,
    "logprob_token_ids": 1024,
    "documents": 256,
    "tokens": MAX_TOKENS,
}
_FLAGS: Final = ("stream", "return_token_ids", "echo", "use_beam_search", "ignore_eos")
_MAX_STOPS: Final = 16
_MAX_STOP_CHARACTERS: Final = 256
_MAX_PROMPTS: Final = 128
_MAX_ITEMS: Final = 2048

_TEXT_PARTS: Final = frozenset(
    {"text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal", "thinking"}
)
_MEDIA: Final = ("image", "audio", "video", "file")
_REFUSED: Final = {
    "prompt_embeds": "prompts are text or token ids, not embeddings.",
    "audio": "answers are text.",
    "mm_processor_kwargs": "prompts are text.",
    "media_io_kwargs": "prompts are text.",
    "kv_transfer_params": "replicas do not exchange caches.",
    "ec_transfer_params": "replicas do not exchange caches.",
}


def check(body: dict[str, Any]) -> None:
    """Raises ApiError (400), naming the field, for the first thing that is beyond a limit or is not text."""
    _refused(body)
    for name, (low, high) in _INTEGERS.items():
        _integer(body.get(name), name, low, high)
    for name, (least, greatest) in _NUMBERS.items():
        _number(body.get(name), name, least, greatest)
    for name, most in _LISTS.items():
        _list(body.get(name), name, most)
    _logprobs(body.get("logprobs"))
    for flag in _FLAGS:
        if not isinstance(body.get(flag), bool | None):
            raise invalid(f"`{flag}` is not true or false.", flag)
    _stops(body.get("stop"))
    constraints.check(body)
    if (asked := sequences(body)) > MAX_SEQUENCES:
        raise invalid(f"The request asks for {asked} sequences; at most {MAX_SEQUENCES} are generated.", "n")
    for field in ("messages", "input"):
        if isinstance(body.get(field), list):
            _turns(body[field], field)


def sequences(body: dict[str, Any]) -> int:
    """How many are generated for the request."""
    return _prompts(body.get("prompt")) * max(body.get("n") or 1, body.get("best_of") or 1)


def most_tokens(body: dict[str, Any]) -> float:
    """How many tokens it lets a sequence have at most."""
    given = (body.get(name) for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"))
    return min((most for most in given if most is not None), default=math.inf)


def _refused(body: dict[str, Any]) -> None:
    for name, reason in _REFUSED.items():
        if body.get(name) is not None:
            raise invalid(f"`{name}` is not taken: {reason}", name)
    if body.get("modalities") not in (None, ["text"]):
        raise invalid("Only text answers are supported.", "modalities")


def _logprobs(value: Any) -> None:
    """A number in completions, true or false in chat."""
    if not isinstance(value, bool):
        _integer(value, "logprobs", 0, 20)


def _integer(value: Any, name: str, low: int, high: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"`{name}` is not a whole number.", name)
    if not low <= value <= high:
        raise invalid(f"`{name}` is {str(value)[:24]}; it must be from {low} to {high}.", name)


def _number(value: Any, name: str, low: float, high: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"`{name}` is not a number.", name)
    if not low <= value <= high:
        raise invalid(f"`{name}` is {str(value)[:24]}; it must be from {low:g} to {high:g}.", name)


def _list(value: Any, name: str, most: int) -> None:
    if value is None:
        return
    if not isinstance(value, list):
        raise invalid(f"`{name}` is not a list.", name)
    if len(value) > most:
        raise invalid(f"`{name}` has {len(value)} entries; at most {most} are taken.", name)


def _stops(value: Any) -> None:
    if value is None:
        return
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise invalid("`stop` is neither a string nor a list of strings.", "stop")
    if len(stops) > _MAX_STOPS:
        raise invalid(f"`stop` has {len(stops)} strings; at most {_MAX_STOPS} are taken.", "stop")
    if any(len(stop) > _MAX_STOP_CHARACTERS for stop in stops):
        raise invalid(f"A string of `stop` has more than {_MAX_STOP_CHARACTERS} characters.", "stop")


def _prompts(value: Any) -> int:
    """How many prompts a completion has."""
    if not isinstance(value, list) or not value or isinstance(value[0], int):
        return 1
    if len(value) > _MAX_PROMPTS:
        raise invalid(f"The request has {len(value)} prompts; at most {_MAX_PROMPTS} are taken.", "prompt")
    return len(value)


def _turns(turns: list[Any], field: str) -> None:
    """Refuses what is not text in messages and in the items of a response's input."""
    if len(turns) > _MAX_ITEMS:
        raise invalid(f"`{field}` has {len(turns)} entries; at most {_MAX_ITEMS} are taken.", field)
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict):
            continue
        if turn.get("type") == "item_reference":
            raise invalid("Items are not stored, so a request cannot refer to one.", f"{field}[{number}]")
        if turn.get("audio") is not None:
            raise invalid("Only text is taken.", f"{field}[{number}].audio")
        for name in ("content", "output"):
            parts = turn.get(name)
            if isinstance(parts, list):
                _parts(parts, f"{field}[{number}].{name}")


def _parts(parts: list[Any], param: str) -> None:
    for number, part in enumerate(parts):
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        foreign = kind is not None and not (isinstance(kind, str) and kind in _TEXT_PARTS)
        if foreign or any(name.removeprefix("input_").startswith(_MEDIA) for name in part):
            shown = f"{kind[:32]!a}" if isinstance(kind, str) else "without a type"
            raise invalid(f"Only text is taken; a part is {shown}.", f"{param}[{number}]")
