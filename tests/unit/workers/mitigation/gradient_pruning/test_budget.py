import pytest
import torch

from workers.mitigation.gradient_pruning.budget import counts_by_price, histogram, step_share, uniform_counts


def prices(scale, elements, seed):
    return scale * torch.rand(elements, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.1, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("reach", [0.0, 0.05, 0.15])
def test_counts_sum_up_to_what_is_asked_and_stay_within_reach(share, reach):
    sizes = {"a": 997, "b": 4001, "c": 512}
    found = {name: histogram(prices(10.0**n, size, n)) for n, (name, size) in enumerate(sizes.items())}
    counts = counts_by_price(found, sizes, share, reach=reach)
    assert sum(counts.values()) == round(share * sum(sizes.values()))
    for name, count in counts.items():
        assert abs(count - share * sizes[name]) <= reach * sizes[name] + 1


def test_without_bounds_it_is_one_threshold_over_all_modules():
    sizes = {"a": 3000, "b": 3000}
    values = {"a": prices(1, 3000, 0), "b": prices(3, 3000, 1)}
    counts = counts_by_price({name: histogram(of) for name, of in values.items()}, sizes, 0.4, reach=1.0)
    threshold = torch.cat(list(values.values())).kthvalue(2400).values
    for name, of in values.items():
        assert counts[name] == pytest.approx(int((of <= threshold).sum()), abs=15)
    assert counts["a"] > counts["b"]


def test_uniform_counts_are_exact_in_all():
    counts = uniform_counts({"a": 7, "b": 7, "c": 7}, 0.5)
    assert sum(counts.values()) == round(0.5 * 21)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_shares_rise_over_the_passes_to_what_is_asked():
    shares = [step_share(0.5, turn, 4) for turn in range(1, 5)]
    assert shares == sorted(shares)
    assert shares[-1] == 0.5
    assert shares[0] > 0.25  # fast at first


def test_a_share_beyond_the_bound_is_exact_all_the_same():
    sizes = {"a": 4000, "b": 4000}
    found = {name: histogram(prices(1 + n, size, n)) for n, (name, size) in enumerate(sizes.items())}
    counts = counts_by_price(found, sizes, 0.995)
    assert counts == {"a": 3980, "b": 3980}


def test_more_prices_of_one_class_than_a_float_can_count_are_counted():
    many = 2**24 + 5
    assert int(histogram(torch.zeros(1).expand(many)).max()) == many
