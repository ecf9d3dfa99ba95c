"""Fisher's exact test against the sum of hypergeometric probabilities."""

import pytest
from scipy import stats

from workers.analysis.paired.mcnemar import fisher


def summed(flips: int, items: int, other_flips: int, other_items: int) -> float:
    """All numbers of flips among `items` that are no likelier than this one, of the flips of both together."""
    drawn = stats.hypergeom(items + other_items, flips + other_flips, items)
    chances = [float(drawn.pmf(count)) for count in range(items + 1)]
    return sum(chance for chance in chances if chance <= chances[flips] * (1 + 1e-9))


@pytest.mark.parametrize(
    ("flips", "items", "other_flips", "other_items"),
    [(12, 20, 2, 40), (3, 10, 3, 10), (0, 6, 9, 80), (6, 6, 0, 1), (0, 7, 0, 9), (5, 5, 4, 4)],
)
def test_p_is_the_sum_over_tables_no_likelier(flips: int, items: int, other_flips: int, other_items: int) -> None:
    assert fisher(flips, items, other_flips, other_items) == pytest.approx(
        summed(flips, items, other_flips, other_items)
    )


@pytest.mark.parametrize("counts", [(1, 0, 1, 4), (0, 4, 0, 0), (5, 4, 0, 3), (-1, 4, 0, 3)])
def test_what_is_no_share_is_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="no two shares"):
        fisher(*counts)
