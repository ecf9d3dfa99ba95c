"""Whether answers are better than a guess."""

from __future__ import annotations

from scipy import stats

from app.contracts.task import Chance
from app.models.tasks.power import LEVEL
from workers.analysis.paired import chance
from workers.analysis.paired.pairs import Pairs
from workers.answering.pair import Answered


def chance_of(one: Answered, pair: Pairs) -> Chance:
    """Whether either model answers better than a guess would."""
    reference, candidate = pair.both_right + pair.harmful, pair.both_right + pair.helpful
    guess = max(one.guess, chance.commonest([(item.choices, item.gold) for item in one.items]))
    if guess:
        p = [float(stats.binom.sf(right - 1, pair.items, guess)) for right in (reference, candidate)]
        return Chance(
            accuracy=guess,
            p_reference=p[0],
            p_candidate=p[1],
            reference_at_chance=p[0] >= LEVEL,
            candidate_at_chance=p[1] >= LEVEL,
        )
    if not one.items[0].choices:  # anyone who guesses a number or a program is wrong
        return Chance(
            accuracy=0.0,
            p_reference=float(reference == 0),
            p_candidate=float(candidate == 0),
            reference_at_chance=reference == 0,
            candidate_at_chance=candidate == 0,
        )
    choices = [len(item.choices) for item in one.items]
    values = [chance.p_value(right, choices) for right in (reference, candidate)]
    return Chance(
        accuracy=chance.accuracy(choices),
        p_reference=values[0],
        p_candidate=values[1],
        reference_at_chance=values[0] >= LEVEL,
        candidate_at_chance=values[1] >= LEVEL,
    )
