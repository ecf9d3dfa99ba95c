from fractions import Fraction
from itertools import pairwise, product
from math import floor
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.outliers import with_outliers
from tests.support.pruning import PARTS, inputs_of, load, operate
from tests.support.stopping import Stop, StoppedError
from workers.surgery import allocation_owl
from workers.surgery.allocation_owl import kept_of_layers, outlier_ratio, owl_shares, whole_counts


def test_outliers_are_counted_against_the_mean_of_the_whole_layer():
    # the mean of all ten is 3.4; above twice that: 10 and 12
    scores = [torch.tensor([[1.0, 1.0], [1.0, 10.0]]), torch.tensor([[2.0, 2.0, 2.0, 12.0, 1.0, 2.0]])]
    assert outlier_ratio(scores, 2.0) == 0.2
    assert outlier_ratio(scores, 3.0) == pytest.approx(0.1)


def test_more_outliers_smaller_share_by_hand():
    assert owl_shares([0.1, 0.2, 0.3], [1, 1, 1], 0.5, 0.08) == pytest.approx([0.58, 0.5, 0.42])
    # three quarters of the weights are in the first layer: mean 0.15, deviations -0.05 and 0.15
    assert owl_shares([0.1, 0.3], [3, 1], 0.5, 0.09) == pytest.approx([0.53, 0.41])
    assert owl_shares([0.2, 0.2], [3, 1], 0.5, 0.08) == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_layers_of_more_outliers_lose_less_by_the_inputs_that_transformers_gives(copy, store, kind):
    """S − λ (D − mean D) / max |D − mean D|, D being counted in float64 over |W|·‖X‖ of all matrices of a layer, which
    have as many weights in each: as the model is, and not by its weights alone."""
    folder = with_outliers(copy(kind))
    step = {"type": "prune.wanda", "sparsity": 0.5, "allocation": "owl", "owl_threshold": 4.0, "owl_range": 0.2}
    with operate(folder, store, step) as modified:
        found = {one.name.split(".")[2]: one.nominal_sparsity for one in modified.manifest.tensors}
    model = load(folder)
    by_inputs, by_weights = [], []
    for layer in range(3):
        paths = [f"model.layers.{layer}.{'self_attn' if part[0] in 'qkvo' else 'mlp'}.{part}" for part in PARTS]
        sizes = [model.get_submodule(path).weight.data.double().abs() for path in paths]
        norms = [inputs_of(model, path).square().sum(0).sqrt() for path in paths]
        for ratios, scores in (
            (by_inputs, torch.cat([(size * norm).flatten() for size, norm in zip(sizes, norms, strict=True)])),
            (by_weights, torch.cat([size.flatten() for size in sizes])),
        ):
            ratios.append(float((scores > 4 * scores.mean()).double().mean()))

    def shares(ratios):
        apart = [ratio - sum(ratios) / 3 for ratio in ratios]
        return [0.5 - 0.2 * one / max(map(abs, apart)) for one in apart]

    assert [found[str(layer)] for layer in range(3)] == pytest.approx(shares(by_inputs), abs=0.01)
    assert max(abs(a - b) for a, b in zip(shares(by_inputs), shares(by_weights), strict=True)) > 0.03


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5000)), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
    st.floats(0, 0.5),
)
def test_shares_keep_their_mean_and_their_bounds(layers, sparsity, span):
    ratios, elements = [ratio for ratio, _ in layers], [count for _, count in layers]
    shares = owl_shares(ratios, elements, sparsity, span)
    mean = sum(share * count for share, count in zip(shares, elements, strict=True)) / sum(elements)
    assert mean == pytest.approx(sparsity, abs=1e-9)
    assert all(abs(share - sparsity) <= span + 1e-9 and -1e-9 <= share <= 1 + 1e-9 for share in shares)
    total = round(sparsity * sum(elements))
    counts = whole_counts(shares, elements, total)
    assert sum(counts) == total
    for count, share, of in zip(counts, shares, elements, strict=True):
        assert 0 <= count <= of
        assert abs(count - share * of) <= 1 + 1e-6


# ---- beside a pattern

PATTERNS = st.integers(4, 12).flatmap(lambda of: st.tuples(st.integers(2, of - 2), st.just(of)))
SIXTEENTHS = st.lists(st.integers(-16, 16), min_size=1, max_size=5)


def test_a_share_becomes_a_whole_n_by_hand():
    # 8 · (1 − share): 4.64, 4.32, 4, 3.68, 3.36; nearest is 5 and 3 at the ends, and their mean is 4
    assert kept_of_layers([0.42, 0.46, 0.5, 0.54, 0.58], [7] * 5, 4, 8) == [5, 4, 4, 4, 3]
    # 4.6 twice, 3.6 three times: all remainders are alike, and three of the layers are rounded up to make 20
    assert kept_of_layers([0.425, 0.425, 0.55, 0.55, 0.55], [7] * 5, 4, 8) == [5, 5, 4, 3, 3]
    # 4.64, 3.8, 3.78, 3.78: nearest would be 5, 4, 4, 4, of mean 4.25
    assert kept_of_layers([0.42, 0.525, 0.5275, 0.5275], [7] * 4, 4, 8) == [4, 4, 4, 4]
    assert kept_of_layers([0.3, 0.5, 0.7], [1, 1, 1], 2, 4) == [3, 2, 1]
    assert kept_of_layers([0.42, 0.5, 0.58], [1, 1, 1], 2, 4) == [2, 2, 2]
    # 3, 1, 1: one more has to stay somewhere, and not in the first layer, which would keep all of 4
    assert kept_of_layers([0.25, 0.75, 0.75], [1, 1, 1], 2, 4) == [3, 2, 1]


def test_layers_of_other_sizes_give_and_take_by_their_weights_by_hand():
    # 4.6, and 3.4 three times: one more of the great layer's 8 takes one from each of three small ones
    assert kept_of_layers([0.425, 0.575, 0.575, 0.575], [30, 10, 10, 10], 4, 8) == [5, 3, 3, 3]
    # 4.4, and 3.4 twice: the two small ones together are less than the great one, and nothing can be given
    assert kept_of_layers([0.45, 0.575, 0.575], [30, 10, 10], 4, 8) == [4, 4, 4]


def ways(exact, kept, of):
    """Every layer rounded down or up, or as the pattern has it; never none, never all."""
    rounded = [{floor(one), floor(one) + 1, kept} for one in exact]
    return product(*({one for one in choice if 1 <= one <= of - 1} for choice in rounded))


@given(PATTERNS, SIXTEENTHS, st.data())
def test_the_nearest_of_all_ways_that_have_the_mean(pattern, off, data):
    kept, of = pattern
    sizes = data.draw(st.lists(st.sampled_from([6, 10, 30]), min_size=len(off), max_size=len(off)))
    exact = [kept + Fraction(one, 16) for one in off]
    found = kept_of_layers([float(1 - one / of) for one in exact], sizes, kept, of)

    def distance(way):
        return sum((size * (n - x) ** 2 for size, n, x in zip(sizes, way, exact, strict=True)), Fraction(0))

    sound = [
        way
        for way in ways(exact, kept, of)
        if sum(size * n for size, n in zip(sizes, way, strict=True)) == kept * sum(sizes)
    ]
    nearest = min(map(distance, sound))
    assert tuple(found) == max(way for way in sound if distance(way) == nearest)


@given(PATTERNS, st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 0.5))
def test_layers_of_one_size_have_the_largest_remainders_in_the_order_of_their_outliers(pattern, ratios, span):
    kept, of = pattern
    reach = min(span, (kept - 1) / of, (of - 1 - kept) / of)
    shares = owl_shares(ratios, [64] * len(ratios), 1 - kept / of, reach)
    found = kept_of_layers(shares, [64] * len(ratios), kept, of)
    assert sum(found) == kept * len(ratios)
    assert set(found) <= set(range(1, of))
    for n, share in zip(found, shares, strict=True):
        assert abs(n - of * (1 - share)) < 1 + 1e-6
    by_outliers = sorted(zip(ratios, found, strict=True))
    for (fewer, less), (more, keeps) in pairwise(by_outliers):
        assert less <= keeps or more - fewer < 1e-6


def test_equal_layers_are_told_apart_by_their_place_alone():
    shares = owl_shares([0.1, 0.1, 0.1, 0.4], [5] * 4, 0.5, 0.2625)
    # 3.3 three times, and 6.1: the last keeps 6, so the others 10 together
    assert kept_of_layers(shares, [5] * 4, 4, 8) == [4, 3, 3, 6]
    assert whole_counts([1 - one for one in shares], [8] * 4, 16) == [4, 3, 3, 6]


def by_sums(quarters, sizes, kept, of):
    """The nearest way, earlier layers keeping more of equal ones: the best of each sum that the first may have."""
    best = {0: (0, ())}
    for one, size in zip(quarters, sizes, strict=True):
        choices = {n for n in (one // 4, one // 4 + 1, kept) if 1 <= n <= of - 1}
        longer = {}
        for beyond, (distance, less) in best.items():
            for n in choices:
                way = (distance + size * (4 * n - one) ** 2, (*less, -n))
                at = beyond + size * (n - kept)
                longer[at] = min(longer.get(at, way), way)
        best = longer
    return tuple(-n for n in best[0][1])


@given(PATTERNS, st.integers(3, 6), st.booleans(), st.data())
def test_the_nearest_way_of_more_layers_than_all_ways_can_be_told(pattern, pairs, alike, data):
    """Shares in quarters of 1 / M, so that many ways are as near: of layers of one size, which are rounded by their
    remainders, and of several, which are searched."""
    kept, of = pattern
    reach = 4 * min(kept - 1, of - 1 - kept)
    half = data.draw(st.lists(st.integers(-reach, reach), min_size=pairs, max_size=pairs))
    off = data.draw(
        st.permutations(half + [-one for one in half])
    )  # of one size the mean is the pattern's, as OWL's is
    quarters = [4 * kept + one for one in off]
    sizes = [8] * len(off) if alike else data.draw(st.lists(st.integers(1, 9), min_size=len(off), max_size=len(off)))
    found = kept_of_layers([1 - one / (4 * of) for one in quarters], sizes, kept, of)
    assert tuple(found) == by_sums(quarters, sizes, kept, of)


def spread(sizes, kept, of):
    """Shares of layers whose outliers are in no order."""
    return owl_shares([(7 * at * at + 3 * at) % 101 / 100 for at in range(len(sizes))], sizes, 1 - kept / of, 0.25)


@pytest.mark.parametrize(
    ("sizes", "kept", "of"), [([64] * 80, 256, 512), ([10 + at % 21 for at in range(80)], 64, 128)]
)
def test_many_layers_of_a_fine_pattern_are_soon_told(sizes, kept, of):
    """No way whatever has less than the distance of each layer's nearest N, and this is all but met."""
    shares, told = spread(sizes, kept, of), list[str]()
    found = kept_of_layers(shares, sizes, kept, of, warn=told.append)
    assert sum(size * n for size, n in zip(sizes, found, strict=True)) == kept * sum(sizes)
    exact = [of * (1 - share) for share in shares]
    least = sum(size * (round(one) - one) ** 2 for size, one in zip(sizes, exact, strict=True))
    distance = sum(size * (n - one) ** 2 for size, n, one in zip(sizes, found, exact, strict=True))
    assert least - 1e-6 <= distance < 1.2 * least
    assert told == []


def test_where_sizes_are_too_many_the_mean_is_met_and_it_is_said():
    # primes far apart, so that hardly two sums are alike
    sizes = [prime for prime in range(40001, 42001, 2) if all(prime % one for one in range(3, 206, 2))][:30]
    shares, told = spread(sizes, 16, 32), list[str]()
    found = kept_of_layers(shares, sizes, 16, 32, warn=told.append)
    assert sum(size * n for size, n in zip(sizes, found, strict=True)) == 16 * sum(sizes)
    (warning,) = told
    assert warning.startswith("30 sizes of layers are too many")
    assert "name the same modules in each layer" in warning


@pytest.mark.parametrize("held", [(1, 2), (8, 16), (40, 80)])
def test_a_search_that_holds_little_still_meets_the_mean_and_warns_where_it_missed_the_nearest(monkeypatch, held):
    warned = 0
    for seed in range(60):
        chance = Random(seed)
        sizes = [chance.randint(3, 40) for _ in range(12)]
        shares = owl_shares([chance.random() for _ in sizes], sizes, 0.5, 0.25)
        with monkeypatch.context() as patch:
            patch.setattr(allocation_owl, "_HELD", held)
            told = list[str]()
            found = kept_of_layers(shares, sizes, 4, 8, warn=told.append)
        assert sum(size * n for size, n in zip(sizes, found, strict=True)) == 4 * sum(sizes)
        if told:
            warned += 1
        else:
            assert found == kept_of_layers(shares, sizes, 4, 8)
    assert warned > 0 or held[1] == 80


def test_a_second_search_that_passes_over_all_keeps_what_the_first_found(monkeypatch):
    sizes = [4, 5, 2, 6, 4, 8, 3]
    shares = [0.6789373459863886, 0.5081606105120352, 0.25, 0.45459440301141285]
    shares += [0.5437355141395697, 0.41973849066320285, 0.6610103878539639]
    monkeypatch.setattr(allocation_owl, "_HELD", (3, 4))
    found = kept_of_layers(shares, sizes, 4, 8)
    assert sum(size * n for size, n in zip(sizes, found, strict=True)) == 4 * sum(sizes)


def test_a_search_of_many_sums_can_be_stopped_at_any_layer():
    sizes = [1 + at for at in range(20)]
    with pytest.raises(StoppedError):
        kept_of_layers(spread(sizes, 16, 32), sizes, 16, 32, check_cancelled=Stop(5))
    asked = Stop()
    kept_of_layers(spread(sizes, 4, 8), sizes, 4, 8, check_cancelled=asked)
    assert asked.calls >= 20


def test_what_differs_by_less_than_shares_are_held_to_is_equal():
    # remainders 0.5, the later one greater by 2^-27 or by 2^-22 of a weight
    assert kept_of_layers([(8 - 4.5) / 8, (8 - 3.5 - 2**-27) / 8], [1, 1], 4, 8) == [5, 3]
    assert kept_of_layers([(8 - 4.5) / 8, (8 - 3.5 - 2**-22) / 8], [1, 1], 4, 8) == [4, 4]
