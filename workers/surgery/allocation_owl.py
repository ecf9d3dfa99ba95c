"""How much of each layer goes: OWL gives a smaller share to layers with many outliers.

OWL (Yin et al., "Outlier Weighed Layerwise Sparsity", 2310.05175): of a decoder layer, the outlier ratio D is the share
of scores |W|·‖X‖ above M times their mean over the layer; a layer's share is S minus a multiple of D, within λ of S.
From there: the score, M, λ, and that one share holds for all matrices of a layer. Ours: the multiple is the largest for
which no layer is further than λ from S (the published code makes the span 2λ, which lets a lone layer go further), and
the mean is weighted by the weights that are addressed, so that their number of zeros is met to the element.

Beside a pattern N:M a layer keeps an N of its own of the same M. From there: that mixture, and that N follows from the
layer's outliers by rounding (measured there for M = 8). Ours: any M; λ is the one of shares, times M, where the
published code has a λ of its own in units of N; every layer keeps 1 to M − 1; and rounding keeps the mean, which the
published code, rounding each layer by itself, does not.
"""

from collections.abc import Callable, Sequence
from math import gcd
from typing import NamedTuple

import torch

from workers.surgery.callbacks import CheckCancelled, never_cancelled

_FINE = 1 << 24  # a share times M is held as so many parts of 1: what is equal but for rounding is equal
# Sums held of each layer: the second where the first do not prove their answer.
_HELD = (1 << 10, 1 << 14)


def outlier_ratio(scores: Sequence[torch.Tensor], threshold: float) -> float:
    """The share of all scores that are above `threshold` times their mean."""
    elements = sum(score.numel() for score in scores)
    mean = sum(float(score.sum(dtype=torch.float64)) for score in scores) / elements
    return sum(int((score > threshold * mean).sum()) for score in scores) / elements


def owl_shares(ratios: Sequence[float], elements: Sequence[int], sparsity: float, span: float) -> list[float]:
    """The share of each layer: their mean, weighted by `elements`, is `sparsity`; none is further than `span` from it,
    nor outside 0 to 1."""
    total = sum(elements)
    mean = sum(ratio * count for ratio, count in zip(ratios, elements, strict=True)) / total
    deviations = [ratio - mean for ratio in ratios]
    largest = max(map(abs, deviations))
    if largest < 1e-12:  # all alike, but for rounding
        return [sparsity] * len(ratios)
    span = min(span, sparsity, 1 - sparsity)
    return [sparsity - span * deviation / largest for deviation in deviations]


def whole_counts(shares: Sequence[float], elements: Sequence[int], total: int) -> list[int]:
    """How many weights of each matrix go: its share of its elements, rounded down or up such that they add up to
    `total` (the largest remainders are rounded up, the earlier of equal ones first)."""
    exact = [share * count for share, count in zip(shares, elements, strict=True)]
    counts = [min(int(value), count) for value, count in zip(exact, elements, strict=True)]
    order = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
    left = total - sum(counts)
    for index in order:
        if left <= 0:
            break
        if counts[index] < elements[index]:
            counts[index] += 1
            left -= 1
    for index in reversed(order):  # sums of floats may be a hair above the total
        if left >= 0:
            break
        if counts[index] > 0:
            counts[index] -= 1
            left += 1
    return counts


def kept_of_layers(
    shares: Sequence[float],
    elements: Sequence[int],
    kept: int,
    of: int,
    *,
    check_cancelled: CheckCancelled = never_cancelled,
    warn: Callable[[str], None] | None = None,
) -> list[int]:
    """How many of every `of` weights each layer keeps, 1 to `of` − 1, where OWL gives it `shares` of zeros: their mean,
    weighted by `elements`, is `kept` exactly.

    Each layer's share is rounded down or up, or is the pattern's, which all layers may have: so the mean can be met. Of
    the ways to meet it that of least squared distance from the shares, weighted too, is taken; of equal ones that in
    which earlier layers keep more. Distances are of shares times `of`, held to 2^-24: what differs by less is equal. Of
    layers of one size these are the largest remainders.

    Of layers of many sizes the ways may be too many to go through: then the best that was found is taken, which has the
    mean as well, and `warn` gets a message. `check_cancelled` is called once a layer and pass.
    """
    exact = [round((1 - share) * of * _FINE) for share in shares]
    if len(set(elements)) == 1:
        remainders = _largest_remainders(exact, kept, of)
        if remainders is not None:
            return remainders
    unit = gcd(*elements)
    moves = _priced(exact, [count // unit for count in elements], kept, of)
    pattern = sum(move.price for choices in moves for move in choices if move.keeps == kept)
    best = _Found([kept] * len(exact), pattern, proven=False)
    for held in _HELD:
        best = _cheapest(moves, best.price, held, check_cancelled) or best
        if best.proven:
            return best.keeps
    if warn is not None:
        warn(
            f"{len(set(elements))} sizes of layers are too many to go through every mixture of N:{of}: the one taken "
            "has the mean asked for, but another may be nearer to OWL's shares; name the same modules in each layer"
        )
    return best.keeps


def _within(one: int, of: int) -> int:
    return min(max(one, 1), of - 1)


def _largest_remainders(exact: Sequence[int], kept: int, of: int) -> list[int] | None:
    """Each rounded down or up, the earlier of equal remainders up first; None where that cannot make the mean."""
    down = [_within(one // _FINE, of) for one in exact]
    rising = [at for at, one in enumerate(exact) if _within(one // _FINE + 1, of) > down[at]]
    up = kept * len(exact) - sum(down)
    if not 0 <= up <= len(rising):
        return None
    for at in sorted(rising, key=lambda at: -(exact[at] % _FINE))[:up]:
        down[at] += 1
    return down


class _Move(NamedTuple):
    """One way to round a layer: what it keeps, by how much that is beyond the mean, and what it costs."""

    keeps: int
    beyond: int
    price: int


class _Found(NamedTuple):
    keeps: list[int]
    price: int
    # whether no way that was passed over is as cheap
    proven: bool


def _priced(exact: Sequence[int], weights: Sequence[int], kept: int, of: int) -> list[list[_Move]]:
    """The choices of each layer, what keeps more first, at their squared distance less `slope` times what they are
    beyond the mean, the cheapest at 0.

    All that make the mean are beyond it by 0 together, so that this changes the price of each by the same. The slope is
    where the cheapest of each layer come nearest to the mean (Lagrange's multiplier): what is dear there is out early.
    """

    def moves(at: int, slope: int) -> list[_Move]:
        choices = {_within(one, of) for one in (exact[at] // _FINE, exact[at] // _FINE + 1, kept)}
        priced = [
            _Move(
                one, weights[at] * (one - kept), weights[at] * ((one * _FINE - exact[at]) ** 2 - slope * (one - kept))
            )
            for one in sorted(choices, reverse=True)
        ]
        least = min(move.price for move in priced)
        return [move._replace(price=move.price - least) for move in priced]

    low, high = -4 * of * _FINE**2, 4 * of * _FINE**2
    while high - low > 1:
        slope = (low + high) // 2
        cheapest = (min(moves(at, slope), key=lambda move: move.price) for at in range(len(exact)))
        if sum(move.beyond for move in cheapest) < 0:
            low = slope
        else:
            high = slope
    return [moves(at, high) for at in range(len(exact))]


def _cheapest(moves: Sequence[Sequence[_Move]], most: int, held: int, check_cancelled: CheckCancelled) -> _Found | None:
    """The cheapest way that is beyond the mean by 0 in all; of equal ones that in which earlier layers keep more.

    From the last layer to the first: what these layers may be beyond the mean → their least price, and the move of the
    first of them. Out go sums that the layers before cannot bring to 0, those dearer than `most`, which some way costs,
    and beyond `held` of them the dearest. No price is negative: a way that was passed over for the last reason is no
    cheaper than the sum it was passed over with. None where all that make the mean were passed over.
    """
    lows, highs = [0], [0]
    for choices in moves:
        lows.append(lows[-1] + min(move.beyond for move in choices))
        highs.append(highs[-1] + max(move.beyond for move in choices))
    prices = {0: 0}
    taken: list[dict[int, _Move]] = []
    passed_over: int | None = None
    for at in range(len(moves) - 1, -1, -1):
        check_cancelled()
        longer: dict[int, int] = {}
        firsts: dict[int, _Move] = {}
        for move in moves[at]:
            for beyond, price in prices.items():
                there, costs = beyond + move.beyond, price + move.price
                if costs > most or not lows[at] <= -there <= highs[at]:
                    continue
                if there not in longer or costs < longer[there]:
                    longer[there], firsts[there] = costs, move
        if len(longer) > held:
            # 0 stays where it is: from there the pattern in all layers before makes the mean
            order = sorted(longer, key=lambda there: (there != 0, longer[there], abs(there), there))
            least = longer[order[held]]
            passed_over = least if passed_over is None else min(passed_over, least)
            longer = {there: longer[there] for there in order[:held]}
            firsts = {there: firsts[there] for there in longer}
        prices = longer
        taken.append(firsts)
    if 0 not in prices:
        return None
    keeps, beyond = [], 0
    for firsts in reversed(taken):
        move = firsts[beyond]
        keeps.append(move.keeps)
        beyond -= move.beyond
    return _Found(keeps, prices[0], passed_over is None or prices[0] < passed_over)
