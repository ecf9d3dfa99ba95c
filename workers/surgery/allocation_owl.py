"""How much of each layer goes: OWL gives a smaller share to layers with many outliers.

OWL (Yin et al., "Outlier Weighed Layerwise Sparsity", 2310.05175).
Of a decoder layer, the outlier ratio D is the share
of scores |W|·‖X‖ above M times their mean over the layer. A layer's share is S minus a multiple of D, within λ of S.
From there: the score, M, λ, and that one share holds for all matrices of a layer. Ours: the multiple is the largest for
which no layer is further than λ from S (the published code makes the span 2λ). The mean is weighted by the weights that
are addressed, so that their number of zeros is met to the element.

Beside a pattern N:M a layer keeps an N of its own of the same M. From there: that mixture, and that N follows from the
layer's outliers by rounding (measured there for M = 8). Ours: any M; λ is the one of shares, times M, where the
published code has a λ of its own in units of N. Every layer keeps 1 to M − 1; and rounding keeps the mean, which the
published code, rounding each layer by itself, does not. It takes layers of one size.
"""

from collections.abc import Sequence

import torch

_FINE = 1 << 24  # a share times M is held as so many parts of 1: what is equal but for rounding is equal


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
    """How many weights of each matrix go: its share of its elements, rounded such that they add up to `total`. The
    largest remainders are rounded up, the earlier of equal ones first."""
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


def kept_of_layers(shares: Sequence[float], kept: int, of: int) -> list[int]:
    """How many of every `of` weights each layer keeps if OWL gives it `shares` of zeros; all layers have one size. It
    is 1 to `of` − 1, of mean `kept` exactly. Each is rounded down or up: the largest remainders up, the earlier of
    equal ones first. Shares times `of` are held to 2^-24: what differs by less is equal."""
    exact = [round((1 - share) * of * _FINE) for share in shares]
    keeps = [min(max(one // _FINE, 1), of - 1) for one in exact]
    rising = [at for at, one in enumerate(exact) if one // _FINE + 1 < of and keeps[at] <= one // _FINE]
    up = kept * len(exact) - sum(keeps)
    for at in sorted(rising, key=lambda at: -(exact[at] % _FINE))[: max(0, up)]:
        keeps[at] += 1
    return keeps
