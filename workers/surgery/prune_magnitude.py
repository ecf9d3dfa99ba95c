"""Magnitude pruning: the weights of smallest absolute value become exactly 0.

The number of zeros is exact: of n weights, round(sparsity · n) (halves to even) go. Those of equal magnitude go in
the order of their index, and over several matrices in the order of the model. Zeros that are there count.

From Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 1506.02626: the criterion,
without the training that follows it there. From Mishra et al., "Accelerating Sparse Deep Neural Networks", 2104.08378:
N of every M along the input. Ours: exact counts with a fixed order of ties, and a threshold over all matrices that is
found with one of them in memory at a time.

Shapes: O output dimension, I input dimension.
"""

from collections.abc import Callable, Iterator

import torch

from workers.surgery.prune_masks import count_to_prune

# Magnitudes are ordered as the bits of their float32 value without sign: 15 high ones, then 16 low ones.
_HIGH, _LOW = 1 << 15, 1 << 16
Visit = Callable[[str, torch.Tensor], None]


class GlobalThreshold:
    """A share of several matrices together, found without holding more than one of them.

    The caller shows every matrix to each of `passes()` in turn; then `apply` prunes them one by one, in any order.
    """

    def __init__(self, sparsity: float) -> None:
        self.sparsity = sparsity
        self._key = -1
        self._ties: dict[str, int] = {}

    def passes(self) -> Iterator[Visit]:
        """Counts by the 15 high bits of the magnitudes; by the 16 low ones within the one bin that holds the threshold.
        Then how many weights of exactly the threshold each matrix must give."""
        high = torch.zeros(_HIGH, dtype=torch.int64)
        low_bits_seen = False

        def by_high_bits(_name: str, weight: torch.Tensor) -> None:
            nonlocal low_bits_seen
            low_bits_seen |= weight.dtype != torch.bfloat16
            high.add_(torch.bincount(_keys(weight).flatten() >> 16, minlength=_HIGH))

        yield by_high_bits
        left = count_to_prune(self.sparsity, int(high.sum()))
        if left == 0:
            return
        high_bin, left = _bin_of(high, left)
        low = torch.zeros(_LOW, dtype=torch.int64)
        low_bin = 0
        if low_bits_seen:

            def by_low_bits(_name: str, weight: torch.Tensor) -> None:
                keys = _keys(weight).flatten()
                low.add_(torch.bincount(keys[keys >> 16 == high_bin] & (_LOW - 1), minlength=_LOW))

            yield by_low_bits
            low_bin, left = _bin_of(low, left)
        key = (high_bin << 16) | low_bin

        def share_ties(name: str, weight: torch.Tensor) -> None:
            nonlocal left
            given = min(left, int((_keys(weight) == key).sum()))
            self._ties[name] = given
            left -= given

        yield share_ties
        self._key = key

    def apply(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The matrix that was shown as `name`, pruned."""
        if self._key < 0:
            return weight
        keys = _keys(weight)
        gone = keys < self._key
        ties = (keys == self._key).flatten().nonzero().flatten()[: self._ties[name]]
        gone.view(-1)[ties] = True
        return weight.masked_fill(gone, 0)


def _bin_of(counts: torch.Tensor, rank: int) -> tuple[int, int]:
    """The bin that holds the `rank`-th smallest (from 1), and its rank within that bin."""
    cumulative = counts.cumsum(0)
    index = int(torch.searchsorted(cumulative, rank))
    return index, rank - (int(cumulative[index - 1]) if index else 0)


def _keys(weight: torch.Tensor) -> torch.Tensor:
    """int32 numbers in the order of |weight|, equal exactly where the magnitudes are."""
    return weight.to(torch.float32).view(torch.int32) & 0x7FFFFFFF
