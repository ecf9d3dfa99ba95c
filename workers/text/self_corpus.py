"""A corpus sampled from the reference itself: text as the model writes it, over several domains, with its exact tokens.

Foreign text asks how the models read; their own text asks how they write, which is what is served. Prompts are the
project's own; where the tokenizer has a chat template the model is asked, otherwise it continues an opening line. The
prompt is context and not scored, what was sampled is.

Sampling is slow, so it goes in batches, and each batch is kept below the service's home under everything it depends on.
A second job samples nothing, and a job that was interrupted goes on at the batch it had reached.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import MAX_DOCUMENTS, Message, SelfText
from app.settings import Settings
from workers.text.callbacks import CheckCancelled, Progress, never_cancelled, no_progress
from workers.text.chat import has_template, prompt_tokens
from workers.text.documents import TextDocument
from workers.text.sampler import ReferenceIdentity, Sampler
from workers.text.storage import read_checked, write_checked
from workers.text.tokenization import bos_of, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMAT = "hemostat.self/1"
# Prompts of one call of the sampler: enough to fill an engine's batch, few enough that cancelling is quick.
BATCH = 32
# Documents are clusters of the interval: at least so many where the number of tokens allows.
WANTED_DOCUMENTS = 64
SHORTEST, LONGEST = 32, 512


@dataclass(frozen=True)
class Prompt:
    """What begins a document: a question to a chat model, or the opening of a text to any other."""

    domain: str
    ask: str
    begin: str


@cache
def prompts() -> dict[str, tuple[Prompt, ...]]:
    """The project's own prompts by domain."""
    data = json.loads((Path(__file__).parent / "data" / "prompts.json").read_text(encoding="utf-8"))
    return {
        domain: tuple(Prompt(domain, entry["ask"], entry["begin"]) for entry in entries)
        for domain, entries in data.items()
    }


def sampled_tokens_each(tokens: int) -> int:
    """Length to which a document is sampled when `tokens` are wanted in all."""
    return min(LONGEST, max(SHORTEST, tokens // WANTED_DOCUMENTS))


def load_self(
    source: SelfText,
    *,
    settings: Settings,
    tokenizer: "PreTrainedTokenizerBase",
    sampler: Sampler,
    identity: ReferenceIdentity,
    seed: int = 0,
    context: int | None = None,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> list[TextDocument]:
    """At least `source.tokens` sampled tokens; what is kept already is not sampled again.

    `context` is the model's longest sequence, prompt included. The same arguments give the same documents. Raises
    WINDOW_TOO_LARGE if the context leaves no room to write, ENGINE_FAILED if the model writes nothing.
    """
    plan = _Plan(tokenizer, seed)
    each = sampled_tokens_each(source.tokens)
    if context is not None:
        each = min(each, context - plan.longest)
        if each < 1:
            raise HemostatError(
                ErrorCode.WINDOW_TOO_LARGE,
                f"The model's context of {context} tokens leaves no room after a prompt of {plan.longest}.",
                hint="Use another text source: inline, file or shipped.",
                pointer="/text/source",
            )
    folder = settings.home / "self-corpora" / _key(source, identity, seed, each, plan)
    documents: list[TextDocument] = []
    total = batch = empty = 0
    while total < source.tokens and len(documents) < MAX_DOCUMENTS:
        check_cancelled()
        progress("sample", total, source.tokens)
        first = batch * BATCH
        wanted = math.ceil((source.tokens - total) / each)
        if batch == 0:
            wanted = max(wanted, len(prompts()))
        size = min(BATCH, wanted)
        begun = [plan.prompt(number) for number in range(first, first + size)]
        drawn = _batch(folder / f"{batch:05d}.json", begun, each, _batch_seed(seed, batch), source.temperature, sampler)
        for number, ((domain, prompt), sampled) in enumerate(zip(begun, drawn, strict=True), start=first):
            if sampled and len(documents) < MAX_DOCUMENTS:
                documents.append(_document(number, domain, prompt, sampled, plan.bos))
                total += len(sampled)
        batch += 1
        empty = 0 if any(drawn) else empty + 1
        if empty == 3:
            raise HemostatError(
                ErrorCode.ENGINE_FAILED,
                f"The model ended {3 * size} texts before their first token.",
                hint="Use another text source, or a higher temperature.",
                pointer="/text",
            )
    progress("sample", source.tokens, source.tokens)
    return documents


class _Plan:
    """Which prompt begins document number n: domains in turn, within each all prompts in a seeded order, then again."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", seed: int) -> None:
        self.bos = bos_of(tokenizer)
        self.chat = has_template(tokenizer)
        self._by_domain: list[tuple[str, list[list[int]]]] = []
        for domain, entries in prompts().items():
            order = list(entries)
            Random(f"{seed}/{domain}").shuffle(order)  # noqa: S311 - an order, not a secret
            self._by_domain.append((domain, [self._tokens(tokenizer, prompt) for prompt in order]))
        self.longest = max(len(tokens) for _, many in self._by_domain for tokens in many)

    def _tokens(self, tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> list[int]:
        if self.chat:
            ids = prompt_tokens(tokenizer, [Message(role="user", content=prompt.ask)]).tolist()
        else:
            ids = encode(tokenizer, prompt.begin).tolist()
        if self.bos is not None and ids[:1] != [self.bos]:
            ids = [self.bos, *ids]
        return [int(token) for token in ids]

    def prompt(self, number: int) -> tuple[str, list[int]]:
        domain, many = self._by_domain[number % len(self._by_domain)]
        return domain, many[number // len(self._by_domain) % len(many)]

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self._by_domain).encode()).hexdigest()


def _key(source: SelfText, identity: ReferenceIdentity, seed: int, each: int, plan: _Plan) -> str:
    told = {
        "format": _FORMAT,
        "identity": asdict(identity),
        "tokens": source.tokens,
        "temperature": source.temperature,
        "seed": seed,
        "each": each,
        "batch": BATCH,
        "prompts": plan.fingerprint(),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _batch_seed(seed: int, batch: int) -> int:
    """Independent batches of one seed; 31 bits, which every engine takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{batch}".encode()).digest()[:4], "big") >> 1


def _batch(
    path: Path,
    begun: Sequence[tuple[str, list[int]]],
    max_tokens: int,
    seed: int,
    temperature: float,
    sampler: Sampler,
) -> list[list[int]]:
    """What was drawn for one batch of prompts: from the store, or now."""
    kept = _read(path, len(begun), max_tokens)
    if kept is not None:
        return kept
    drawn = sampler.sample([prompt for _, prompt in begun], max_tokens, seed, temperature)
    sampled = [[int(token) for token in tokens[:max_tokens]] for tokens in drawn]
    if len(sampled) != len(begun):
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            f"The engine sampled {len(sampled)} texts for {len(begun)} prompts.",
            pointer="/text",
        )
    write_checked(path, {"format": _FORMAT, "sampled": sampled})
    # Where another worker was first, its text is the corpus.
    return _read(path, len(begun), max_tokens) or sampled


def _read(path: Path, count: int, max_tokens: int) -> list[list[int]] | None:
    data = read_checked(path)
    sampled = data.get("sampled") if data is not None and data.get("format") == _FORMAT else None
    if not isinstance(sampled, list) or len(sampled) != count:
        return None
    if any(not isinstance(tokens, list) or len(tokens) > max_tokens for tokens in sampled):
        return None
    return sampled


def _document(number: int, domain: str, prompt: list[int], sampled: list[int], bos: int | None) -> TextDocument:
    before = prompt[1:] if bos is not None and prompt[:1] == [bos] else prompt
    return TextDocument(
        id=f"self-{domain}-{number:05d}",
        domain=domain,
        tokens=np.asarray([*before, *sampled], dtype=np.int32),
        scored_from=len(before),
    )
