"""How many weights each module loses: where a zero costs least, within bounds, and exactly as many as asked for.

One threshold on the price over all modules makes the sum of prices least. A module's share is kept within `reach` of
the asked one, because prices are right for few zeros and say too little of many. It is the water-filling of Lagrangian
rate allocation, applied to prices in nats; OWL (arXiv 2310.05175) has the bound, with another measure. Exact counts and
the search over bounds are ours.
"""

from collections.abc import Mapping

import torch

from workers.surgery.allocation_owl import whole_counts

REACH = 0.15
# Prices are sorted into so many classes on a logarithmic scale: enough for shares of a thousandth.
_CLASSES = 4096
_LOWEST, _HIGHEST = -90.0, 40.0
# Counted at once: a count is a float32, which holds every number up to 2²⁴.
_COUNTED = 1 << 23


def uniform_counts(sizes: Mapping[str, int], share: float) -> dict[str, int]:
    """The same share of every module, in all exactly round(share · weights)."""
    return _exact(dict.fromkeys(sizes, share), sizes, share)


def shares_by_price(
    histograms: Mapping[str, torch.Tensor], sizes: Mapping[str, int], share: float, *, reach: float = REACH
) -> dict[str, float]:
    """Module → share of its weights that go. `histograms`: of each module's prices, by `histogram`."""
    low, high = max(0.0, share - reach), max(share, min(0.99, share + reach))
    total = sum(sizes.values())
    cumulative = {name: counts.cumsum(0).to(torch.float64) / sizes[name] for name, counts in histograms.items()}

    def at(threshold: int) -> dict[str, float]:
        return {name: min(high, max(low, float(of[threshold]))) for name, of in cumulative.items()}

    first, last = 0, _CLASSES - 1
    while first < last:
        middle = (first + last) // 2
        shares = at(middle)
        if sum(shares[name] * sizes[name] for name in sizes) >= share * total:
            last = middle
        else:
            first = middle + 1
    above, below = at(first), at(max(0, first - 1))
    # between two classes: so much of the upper one that the mean is right
    more = sum(above[name] * sizes[name] for name in sizes)
    less = sum(below[name] * sizes[name] for name in sizes)
    part = 1.0 if more <= less else min(1.0, max(0.0, (share * total - less) / (more - less)))
    return {name: below[name] + part * (above[name] - below[name]) for name in sizes}


def counts_by_price(
    histograms: Mapping[str, torch.Tensor], sizes: Mapping[str, int], share: float, *, reach: float = REACH
) -> dict[str, int]:
    """Module → how many of its weights go; in all exactly round(share · weights)."""
    return _exact(shares_by_price(histograms, sizes, share, reach=reach), sizes, share)


def histogram(price_OI: torch.Tensor) -> torch.Tensor:
    """How many weights have a price in each class; those below 1e-39 count as that."""
    found = torch.zeros(_CLASSES, dtype=torch.int64)
    for part in torch.split(price_OI.reshape(-1), _COUNTED):
        logs = part.clamp(min=1e-39).log().clamp_(_LOWEST, _HIGHEST)
        found += torch.histc(logs, bins=_CLASSES, min=_LOWEST, max=_HIGHEST).to(torch.int64)
    return found


def _exact(shares: Mapping[str, float], sizes: Mapping[str, int], share: float) -> dict[str, int]:
    """Whole numbers that sum up to what is asked."""
    total = round(share * sum(sizes.values()))
    counts = whole_counts([shares[name] for name in sizes], list(sizes.values()), total)
    return dict(zip(sizes, counts, strict=True))


def step_share(share: float, turn: int, passes: int) -> float:
    """The share after pass `turn` (from 1) of `passes`: fast at first, as in Zhu and Gupta 2017 (arXiv 1710.01878)."""
    return share * (1 - (1 - turn / passes) ** 3)
