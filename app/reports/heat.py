"""Passages of text as heat maps: a step of colour for each token by its KL.

The scale is logarithmic, half a decade per step, and ends at the largest KL shown. So a report about 1e-6 nats shows
where the damage is as one about 3 nats does. The legend says what the steps are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.contracts.report import ContextToken, Passage
from app.reports import blocks
from app.reports import format as fmt
from app.reports.untrusted import visible, with_breaks

STEPS = 7
_MAX_TOKEN = 60


@dataclass(frozen=True)
class HeatScale:
    """`edges[i]` is the KL, in nats, at which step i + 1 begins; under the first edge a token stays plain (step 0)."""

    edges: tuple[float, ...]

    @classmethod
    def up_to(cls, largest: float) -> HeatScale:
        """Steps of half a decade (1, 3, 10, …) whose last one holds `largest`, at most 3 nats."""
        if not 0 < largest < math.inf:
            return cls(tuple(_half_decade(index - STEPS + 1) for index in range(STEPS)))
        last = math.floor(2 * math.log10(largest)) + 1
        while _half_decade(last) > largest:
            last -= 1
        last = min(1, last)
        return cls(tuple(_half_decade(last - STEPS + 1 + index) for index in range(STEPS)))

    def step(self, kl: float | None) -> int:
        """0 (plain) to `STEPS` (strongest); 0 if there is no KL."""
        return 0 if kl is None else sum(kl >= edge for edge in self.edges)

    @property
    def legend(self) -> tuple[tuple[int, str], ...]:
        """Each step with the KL at which it begins, as text."""
        return tuple((index + 1, fmt.short(edge)) for index, edge in enumerate(self.edges))


def _half_decade(index: int) -> float:
    """1 at 0, 3 at 1, 10 at 2, 0.3 at -1."""
    return float(f"{3 if index % 2 else 1}e{index // 2}")


def heat(passages: Sequence[Passage]) -> blocks.Passages:
    """The passages in colours of one scale."""
    scale = HeatScale.up_to(largest_kl(passages))
    return blocks.Passages(scale.legend, tuple(heat_passage(passage, scale) for passage in passages))


def largest_kl(passages: Iterable[Passage]) -> float:
    """The largest KL of all scored tokens, 0 if there is none."""
    return max((token.kl for passage in passages for token in passage.tokens if token.kl is not None), default=0.0)


def heat_passage(passage: Passage, scale: HeatScale) -> blocks.Passage:
    """Colours one passage; its worst token shows its KL."""
    scored = [(token.kl, -index) for index, token in enumerate(passage.tokens) if token.kl is not None]
    worst_kl, worst_index = max(scored) if scored else (None, 1)
    last = passage.start + max(0, len(passage.tokens) - 1)
    caption = f"{visible(passage.document)} · {visible(passage.domain)} · tokens {passage.start}–{last}"
    if worst_kl is not None:
        caption += f" · worst {fmt.number(worst_kl, 2)} nats"
    tokens = (_heat_token(token, scale, worst=index == -worst_index) for index, token in enumerate(passage.tokens))
    return blocks.Passage(caption, tuple(tokens))


def _heat_token(token: ContextToken, scale: HeatScale, *, worst: bool) -> blocks.Token:
    return blocks.Token(
        text=with_breaks(token.text),
        step=scale.step(token.kl),
        title="not scored" if token.kl is None else f"KL {fmt.number(token.kl)} nats",
        label=fmt.number(token.kl, 2) if worst and token.kl is not None else "",
    )


def quoted(token: str | None) -> str:
    """A token with its spaces made visible, they are part of it; a very long one is cut."""
    if token is None:
        return fmt.NONE
    text = visible(token).replace(" ", "·")
    return text if len(text) <= _MAX_TOKEN else f"{text[:_MAX_TOKEN]}… ({fmt.count(len(token))} characters)"
