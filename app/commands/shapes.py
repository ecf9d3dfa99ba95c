"""How structured fields of a request are written as words of a command line, and read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.commands.finite import require_finite
from app.commands.recipes import parse_text, text_word
from app.commands.tasks import parse_task, task_word
from app.commands.trajectories import (
    candidate_word,
    decoder_word,
    parse_candidate,
    parse_decoder,
    parse_shaping,
    shaping_word,
)
from app.contracts.errors import ErrorCode, HemostatError

Json = dict[str, Any]
Words = list[str]


@dataclass(frozen=True)
class Shape:
    """`read`: the value of all words of an option, which it names in errors; it raises INVALID_REQUEST. `write`: the
    words of a value; None if they cannot say it. `repeated`: the option takes several words. `help`: the notation.
    `parts`: whether a word sets the whole field, or the part of it that its key names."""

    read: Callable[[Words, str], Any]
    write: Callable[[Any], Words | None]
    repeated: bool
    help: str
    parts: Literal["whole", "keyed"] = "whole"


def _one(read: Callable[[str], Any], write: Callable[[Any], str | None], notation: str) -> Shape:
    def words(value: Any) -> Words | None:
        word = write(value)
        return None if word is None else [word]

    return Shape(lambda given, _: read(given[0]), words, repeated=False, help=notation)


def _each(read: Callable[[str], Any], write: Callable[[Any], str | None], notation: str) -> Shape:
    def words(values: Any) -> Words | None:
        found = [word for word in map(write, values) if word is not None]
        return found if found and len(found) == len(values) else None

    return Shape(lambda given, _: [read(one) for one in given], words, repeated=True, help=notation)


def _keyed(read: Callable[[str, str], Any], write: Callable[[Any], str | None], notation: str) -> Shape:
    """`KEY=VALUE`, each key once; a value that is written as None is left out."""

    def words(values: Json) -> Words:
        written = {key: write(value) for key, value in values.items()}
        return [f"{key}={word}" for key, word in written.items() if word is not None]

    def value(given: Words, option: str) -> Json:
        return {key: read(key, word) for key, word in pairs(given, option).items()}

    return Shape(value, words, repeated=True, help=notation, parts="keyed")


def numeral(value: float) -> str:
    """A number that is read back as the same one, short where that is no other."""
    short = f"{value:g}"
    return short if float(short) == value and "e" not in short else repr(value)


def pairs(values: list[str] | None, option: str) -> dict[str, str]:
    """`key=value`, each given once. Raises INVALID_REQUEST."""
    found: dict[str, str] = {}
    for value in values or []:
        key, equals, rest = value.partition("=")
        if not equals:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"{option} {value!r} is not KEY=VALUE",
                hint=f"write {option} KEY=VALUE, with an equals sign",
            )
        if key in found:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"{option} {key} is given twice: {found[key]} and {rest}",
                hint=f"give each {option} once",
            )
        found[key] = rest
    return found


def number(key: str, value: str, option: str = "--threshold") -> float:
    """The value of a threshold, or of another option that is written KEY=VALUE. Raises INVALID_REQUEST."""
    try:
        found = float(value)
    except ValueError:
        detail = f"{option} {key}={value}: {value!r} is not a number"
        raise HemostatError(ErrorCode.INVALID_REQUEST, detail, hint=f"write {option} {key}=NUMBER") from None
    require_finite(found, f"{option} {key}={value}")
    return found


def parse_layers(text: str) -> list[int]:
    """`0+1+2`, `4-9`, `0+4-9`. Raises INVALID_REQUEST."""
    found: list[int] = []
    for part in text.split("+"):
        first, dash, last = part.partition("-")
        whole = first.isdecimal() and (last.isdecimal() if dash else True) and len(first + last) < 10
        if whole and dash and int(last) < int(first):
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"--layers {text[:80]!r} holds {part!r}, a range that runs backwards",
                hint=f"write {last}-{first}",
                pointer="/layers",
            )
        if not whole or int(last or first) >= 10_000:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"--layers {text[:80]!r} holds {part[:20]!r}, which is neither a layer nor a range",
                hint="write 0+1+2, or 4-9; layers are numbered from 0 to 9999",
                pointer="/layers",
            )
        found += range(int(first), int(last or first) + 1)
    return found


def _layers_word(layers: list[int]) -> str:
    return "+".join(map(str, layers))


def parse_contour(text: str) -> Json:
    """`MEASURE=LEVEL`. Raises INVALID_REQUEST."""
    measure_name, equals, level = text.partition("=")
    if not equals:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--contour {text}: not MEASURE=LEVEL",
            hint="for example: --contour kl=0.05, --contour perplexity_ratio=1.05, --contour perplexity=7.5",
        )
    return {"measure": measure_name, "level": number(measure_name, level, "--contour")}


def _contour_word(contour: Json) -> str | None:
    level = contour.get("level")
    return None if level is None else f"{contour.get('measure', 'kl')}={numeral(level)}"


def parse_bound(name: str, text: str) -> list[float | None]:
    """`LOW..HIGH`, either end may be empty. Raises INVALID_REQUEST."""
    low, dots, high = text.partition("..")
    if not dots:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--bound {name}={text}: not LOW..HIGH",
            hint="for example: --bound b=0.. or --bound s0=0.2..0.6",
        )
    return [number(name, end, "--bound") if end.strip() else None for end in (low, high)]


def _bound_word(bound: list[float | None]) -> str | None:
    ends = ["" if end is None else numeral(end) for end in bound]
    return "..".join(ends) if any(ends) else None


def _cuts(words: Words, _: str) -> list[Json]:
    return [] if words == ["none"] else [parse_shaping(one) for one in words]


def _cut_words(shapings: list[Json]) -> Words | None:
    words = [word for word in map(shaping_word, shapings) if word is not None]
    return (words or ["none"]) if len(words) == len(shapings) else None


SHAPES: Final = {
    "text": _one(
        parse_text,
        text_word,
        "shipped[:DOCUMENTS], calibration, classes, self:TOKENS, hub:NAME[:COLUMN], or a file or folder here",
    ),
    "task": _each(
        parse_task,
        task_word,
        "shipped[:ITEMS], or FORMAT:PATH[,key=value] of a file below the service's text root; formats: hellaswag, arc, "
        "mmlu, gsm8k, humaneval; keys: name, items, shots, examples, metric, max_tokens, passage. Or "
        "harness:TASK:PATH[,key=value] with a task of lm-evaluation-harness; also filter=. Repeated for more",
    ),
    "candidate": _each(
        parse_candidate,
        candidate_word,
        "MODEL, or MODEL=RECIPE with a recipe of one step: base=quantize.rtn:bits=3; repeated for more",
    ),
    "decoder": _each(
        parse_decoder, decoder_word, "NAME or NAME:key=value,…, for example top_p:p=0.9; repeated for more"
    ),
    "shaping": Shape(
        _cuts,
        _cut_words,
        True,
        "NAME or NAME:key=value,…, for example top_k:k=20, or none; repeated for more",
    ),
    "layers": _one(parse_layers, _layers_word, "0+1+2 or 4-9"),
    "contour": _one(parse_contour, _contour_word, "kl=NATS, perplexity_ratio=RATIO or perplexity=PPL"),
    "bounds": _keyed(
        parse_bound, _bound_word, "COEFFICIENT=LOW..HIGH, one end may be empty: b=0.. ; repeated for more"
    ),
    "thresholds": _keyed(number, numeral, "CLASS=NATS, for example severe=0.3; repeated for more"),
    "metadata": _keyed(lambda _, word: word, str, "key=value; repeated for more"),
}
