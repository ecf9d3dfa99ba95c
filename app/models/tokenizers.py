"""Whether two tokenizers give the same tokens, told from their tokenizer.json alone.

Compared is what changes token ids: vocabulary, merges, scores, added tokens, normalizer, pre-tokenizer, the tokens put
around a text. Decoders, offsets and the order of keys are not. tokenizer_config.json's add_bos_token is not, either:
where there is a tokenizer.json, transformers goes by its post-processor alone.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.models.json_file import MALFORMED, read_json
from app.models.patterns import may_explode

# Of a tokenizer.json. The largest known ones have 34 MB.
MOST_BYTES = 64 * 1024**2
_LONGEST_TOKEN = 64  # characters
_ADDED_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True)
class TokenizerContent:
    """What decides which ids a text becomes."""

    tokens: dict[int, str]
    added: dict[int, list[bool]]
    merges: list[list[str]]
    scores: list[float]
    model: dict[str, Any]
    normalizer: Any
    pre_tokenizer: Any
    before: list[int]
    after: list[int]

    @property
    def size(self) -> int:
        """How many ids are in use."""
        return len(self.tokens)


def tokenizer_fingerprint(path: Path) -> str:
    """SHA-256, hex, over `TokenizerContent`: equal exactly where `compare_tokenizers` finds no difference."""
    _content(path)  # says what is wrong with the files
    return _fingerprint(path, _signature(path / "tokenizer.json"))


def has_chat_template(path: Path) -> bool:
    """Whether the folder's tokenizer comes with a chat template. Of several, the one called default is taken, and no
    other."""
    if (path / "chat_template.jinja").is_file():
        return True
    template = _settings(path).get("chat_template")
    if isinstance(template, list):
        return any(isinstance(one, dict) and one.get("name") == "default" and one.get("template") for one in template)
    return bool(template)


def is_one_token(path: Path, text: str) -> bool:
    """Whether a text is one entry of the vocabulary, so that merges lead to it: byte-level BPE writes a space as Ġ,
    SentencePiece as ▁. False if it may be cut another way."""
    if len(text) > _LONGEST_TOKEN or not text.isascii() or not (path / "tokenizer.json").is_file():
        return False
    content = _content(path)
    forms = {text.replace(" ", space) for space in "Ġ▁"}
    return (
        content.model.get("type") == "BPE"
        and content.normalizer is None
        and not forms.isdisjoint(content.tokens.values())
    )


def check_tokenizer(path: Path, vocabulary: int, *, name: str, pointer: str = "") -> None:
    """Returns where the folder's tokenizer can be read and its tokens fit a model with embeddings of `vocabulary`
    tokens, called `name` in errors. Tokens that were added may lie beyond: some models' stand for pictures.

    Raises `HemostatError`, with `pointer`: CHECKPOINT_INCOMPLETE, CHECKPOINT_CORRUPT, CHECKPOINT_UNSUPPORTED (a pattern
    that may take exponential time), VOCABULARY_MISMATCH.
    """
    try:
        content = _content(path)
    except HemostatError as error:
        raise HemostatError(error.code, f"model {name!r}: {error.detail}", hint=error.hint, pointer=pointer) from error
    last = max((index for index in content.tokens if index not in content.added), default=-1)
    if last >= vocabulary:
        raise HemostatError(
            ErrorCode.VOCABULARY_MISMATCH,
            f"model {name!r}: its tokenizer has a token {last} ({content.tokens[last]!r}), and config.json says "
            f"vocab_size {vocabulary}",
            hint="put the model's own tokenizer beside its weights",
            pointer=pointer,
        )


def compare_tokenizers(
    reference: Path, candidate: Path, *, names: tuple[str, str] = ("the reference", "the candidate"), pointer: str = ""
) -> None:
    """Returns where both folders' tokenizers give the same tokens for every text.

    Raises `HemostatError(VOCABULARY_MISMATCH)` with the first difference: the lowest token id, else the first flag,
    merge, score or component. `CHECKPOINT_INCOMPLETE` or `CHECKPOINT_CORRUPT`: a tokenizer is missing or cannot be
    read.
    """
    one, other = _content(reference), _content(candidate)
    difference = _first_difference(one, other, names)
    if difference is not None:
        raise HemostatError(
            ErrorCode.VOCABULARY_MISMATCH,
            difference,
            hint="two models can only be compared token by token when both use the same tokenizer",
            pointer=pointer,
        )


def _first_difference(one: TokenizerContent, other: TokenizerContent, names: tuple[str, str]) -> str | None:
    def told(subject: str, first: object, second: object) -> str:
        return f"{subject} is {first} in {names[0]} and {second} in {names[1]}"

    for token in sorted(one.tokens.keys() | other.tokens.keys()):
        texts = [repr(side.tokens[token]) if token in side.tokens else "absent" for side in (one, other)]
        if texts[0] != texts[1]:
            return told(f"token {token}", *texts) + f" ({one.size} and {other.size} tokens in all)"
    for subject, ours, theirs in (
        ("added token", one.added, other.added),
        ("merge", dict(enumerate(one.merges)), dict(enumerate(other.merges))),
        ("the score of token", dict(enumerate(one.scores)), dict(enumerate(other.scores))),
    ):
        for index in sorted(ours.keys() | theirs.keys()):
            if ours.get(index) != theirs.get(index):
                return told(f"{subject} {index}", ours.get(index), theirs.get(index))
    for subject, first, second in (
        ("the tokenizer's model", one.model, other.model),
        ("the normalizer", one.normalizer, other.normalizer),
        ("the pre-tokenizer", one.pre_tokenizer, other.pre_tokenizer),
        ("what is put before a text", one.before, other.before),
        ("what is put after a text", one.after, other.after),
    ):
        if first != second:
            return told(subject, *(json.dumps(side, ensure_ascii=False)[:300] for side in (first, second)))
    return None


def _content(path: Path) -> TokenizerContent:
    file = path / "tokenizer.json"
    if not file.is_file():
        raise HemostatError(
            ErrorCode.CHECKPOINT_INCOMPLETE,
            f"{path.name} has no tokenizer.json",
            hint="save the tokenizer into the folder in its fast form, or name another one in models.toml (tokenizer)",
        )
    return _read(path, _signature(file))


def _signature(file: Path) -> tuple[int, int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _settings(path: Path) -> dict[str, Any]:
    file = path / "tokenizer_config.json"
    return read_json(file) if file.is_file() else {}


@lru_cache(maxsize=64)
def _fingerprint(path: Path, signature: tuple[int, int, int]) -> str:
    content = vars(_read(path, signature))
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


@lru_cache(maxsize=2)  # 230 MB each, of 256,000 tokens
def _read(path: Path, _signature: tuple[int, int, int]) -> TokenizerContent:
    file = path / "tokenizer.json"
    data = read_json(file, most_bytes=MOST_BYTES)
    try:
        for pattern in _patterns([data.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")]):
            _check_pattern(pattern, file)
        return _parse(data)
    except MALFORMED as error:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"{file.name} is not valid: {type(error).__name__} {error}",
            hint="fetch or write the tokenizer again",
        ) from error


def _parse(data: dict[str, Any]) -> TokenizerContent:
    model = dict(data["model"])
    vocabulary, merges = model.pop("vocab"), model.pop("merges", None) or []
    scores: list[float] = []
    if isinstance(vocabulary, list):
        tokens = {index: str(piece) for index, (piece, _) in enumerate(vocabulary)}
        scores = [float(score) for _, score in vocabulary]
    else:
        tokens = {int(index): str(token) for token, index in vocabulary.items()}
    added = {}
    for token in data.get("added_tokens") or []:
        tokens[int(token["id"])] = str(token["content"])
        added[int(token["id"])] = [bool(token.get(flag, False)) for flag in _ADDED_FLAGS]
    before, after = _around(data.get("post_processor"))
    return TokenizerContent(
        tokens=tokens,
        added=added,
        merges=[merge.split(" ", 1) if isinstance(merge, str) else [str(part) for part in merge] for merge in merges],
        scores=scores,
        model={key: value for key, value in model.items() if value},
        normalizer=_component(data.get("normalizer")),
        pre_tokenizer=_component(data.get("pre_tokenizer")),
        before=before,
        after=after,
    )


def _patterns(part: Any) -> Iterator[str]:
    """The regular expressions in a part of the file."""
    if isinstance(part, dict):
        if isinstance(part.get("Regex"), str):
            yield part["Regex"]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _patterns(inner)


def _check_pattern(pattern: str, file: Path) -> None:
    if may_explode(pattern):
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"{file.name} has a regular expression that may take exponential time: {pattern[:100]!r}",
            hint="write it without a repeated group that contains a repetition or a choice",
        )


def _component(component: Any) -> Any:
    """A normalizer or pre-tokenizer without what changes no id, and with an empty or single sequence unwrapped."""
    if not isinstance(component, dict):
        return component
    kind = component.get("type")
    if kind == "Sequence":
        key = "normalizers" if "normalizers" in component else "pretokenizers"
        parts = [part for part in map(_component, component[key]) if part is not None]
        return parts[0] if len(parts) == 1 else {"type": kind, "parts": parts} if parts else None
    kept = {key: value for key, value in component.items() if key not in {"trim_offsets", "str_rep"}}
    if kind == "ByteLevel":
        kept = {"add_prefix_space": True, "use_regex": True} | kept
    if kind == "Metaspace":
        if "prepend_scheme" not in kept:
            kept["prepend_scheme"] = "always" if kept.get("add_prefix_space", True) else "never"
        kept.pop("add_prefix_space", None)
        kept = {"split": True} | kept
    return kept


def _around(processor: Any) -> tuple[list[int], list[int]]:
    """Ids that a post-processor puts before and after a single text."""
    if not processor:
        return [], []
    kind = processor["type"]
    if kind == "Sequence":
        before: list[int] = []
        after: list[int] = []
        for part in processor["processors"]:
            outer = _around(part)
            before, after = outer[0] + before, after + outer[1]
        return before, after
    if kind in {"BertProcessing", "RobertaProcessing"}:
        return [int(processor["cls"][1])], [int(processor["sep"][1])]
    if kind != "TemplateProcessing":
        return [], []
    sides: tuple[list[int], list[int]] = ([], [])
    side = 0
    for piece in processor["single"]:
        if "Sequence" in piece:
            side = 1
        else:
            sides[side].extend(int(i) for i in processor["special_tokens"][piece["SpecialToken"]["id"]]["ids"])
    return sides
