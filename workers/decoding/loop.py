"""Any decoder over any model, one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.contracts.decoding import Beam, Contrastive, Decoder, DiverseBeam, Fsd, FsdD, Greedy, Mirostat
from workers.decoding import beam, contrastive
from workers.decoding.fsd import FsdDRule, FsdRule
from workers.decoding.mirostat import MirostatRule
from workers.decoding.model import Continuation, Model
from workers.decoding.rules import Draws, GreedyRule, Rule, SamplingRule


def _no_tick(_: int) -> None:
    """Nobody counts."""


def decode(
    model: Model,
    prompts: Sequence[Sequence[int]],
    decoder: Decoder,
    *,
    max_tokens: int,
    ends: frozenset[int] = frozenset(),
    seed: int = 0,
    keys: Sequence[int] | None = None,
    tick: Callable[[int], None] = _no_tick,
) -> list[Continuation]:
    """The continuation of each prompt, all of them at once, of at most `max_tokens` ≥ 1 tokens.

    A token of `ends` ends a text. `keys` name the prompts in the stream of random numbers (default: their places), so
    that a prompt is continued with the same numbers whichever others stand beside it. `tick` gets the
    number of tokens of each step, and may raise to stop.
    """
    if not prompts:
        return []
    match decoder:
        case Beam() | DiverseBeam():
            return beam.search(model, prompts, decoder, max_tokens=max_tokens, ends=ends, tick=tick)
        case Contrastive():
            return contrastive.search(model, prompts, decoder, max_tokens=max_tokens, ends=ends, tick=tick)
        case _:
            draws = Draws(seed, range(len(prompts)) if keys is None else keys, max_tokens)
            return follow(model, prompts, rule_of(decoder, draws), max_tokens=max_tokens, ends=ends, tick=tick)


def rule_of(decoder: Decoder, draws: Draws) -> Rule:
    """The rule of a decoder that takes one token after the other. Raises ValueError for one that searches."""
    match decoder:
        case Greedy():
            return GreedyRule()
        case Fsd():
            return FsdRule(decoder)
        case FsdD():
            return FsdDRule(decoder)
        case Mirostat():
            return MirostatRule(decoder, draws)
        case Beam() | DiverseBeam() | Contrastive():
            raise ValueError(f"{decoder.name} looks ahead and has no rule")
        case _:
            return SamplingRule(decoder, draws)


def follow(
    model: Model,
    prompts: Sequence[Sequence[int]],
    rule: Rule,
    *,
    max_tokens: int,
    ends: frozenset[int],
    tick: Callable[[int], None],
) -> list[Continuation]:
    """What `rule` makes of each prompt."""
    session = model.open(prompts)
    rule.begin(prompts, session.prompt_hidden)
    made: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    for length in range(1, max_tokens + 1):
        tokens = rule.choose(session.step, live)
        for prompt, token in zip(live, tokens, strict=True):
            made[prompt].append(token)
        tick(len(live))
        going = [row for row, token in enumerate(tokens) if token not in ends]
        if not going or length == max_tokens:
            break
        live = [live[row] for row in going]
        session.next([tokens[row] for row in going], going)
    return [Continuation(tuple(tokens), tokens[-1] in ends) for tokens in made]
