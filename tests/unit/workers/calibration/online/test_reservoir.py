"""What a refit learns from."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workers.calibration.online.reservoir import Item, ItemsMemory, RecentItems, Reservoir, key

ITEMS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), max_size=60).map(
    lambda pairs: [Item(name=f"d{name}", tokens=tokens) for name, tokens in dict(pairs).items()]
)


def filled(rule: Reservoir | RecentItems, items: list[Item]) -> ItemsMemory:
    memory = rule.start()
    for item in items:
        memory = rule.add(memory, item)
    return memory


@settings(max_examples=100)
@given(ITEMS, st.integers(1, 200), st.randoms(use_true_random=False))
def test_the_sample_is_the_smallest_keys_within_the_budget_in_whatever_order_they_came(
    items: list[Item], budget: int, shuffle: random.Random
) -> None:
    rule = Reservoir(budget_tokens=budget, seed=3)
    expected: list[Item] = []
    for item in sorted((item for item in items if item.tokens <= budget), key=lambda item: key(3, item.name)):
        if sum(kept.tokens for kept in expected) + item.tokens > budget:
            break
        expected.append(item)
    again = shuffle.sample(items, len(items)) + items[:5]
    assert filled(rule, items).items == tuple(expected)
    assert filled(rule, again).items == tuple(expected)


def test_every_item_has_the_same_chance_wherever_it_stood() -> None:
    """1,000 seeds, 20 of 100 items each: counts of the first to the last ten against the uniform law."""
    items = [Item(name=str(index), tokens=5) for index in range(100)]
    counts = [0] * 10
    for seed in range(1000):
        for item in sorted(items, key=lambda item: key(seed, item.name))[:20]:
            counts[int(item.name) // 10] += 1
    for seed in range(3):
        kept = filled(Reservoir(budget_tokens=100, seed=seed), items).items
        assert kept == tuple(sorted(items, key=lambda item: key(seed, item.name))[:20])
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_draw_is_the_same_on_every_machine_and_another_with_another_seed() -> None:
    assert key(0, "d1") == 0x15BB03074D2FF8AA  # printf '0\0d1' | b2sum -l 64
    assert key(0, "d1") != key(1, "d1")


def test_an_item_larger_than_the_budget_blocks_nothing() -> None:
    rule = Reservoir(budget_tokens=10)
    assert filled(rule, [Item(name="big", tokens=11), Item(name="small", tokens=10)]).items == (
        Item(name="small", tokens=10),
    )


def test_the_recent_fill_the_budget_to_its_end() -> None:
    items = [Item(name=name, tokens=5) for name in "ab"]
    assert filled(RecentItems(budget_tokens=10), items).items == tuple(items)


def test_the_recent_are_the_last_within_the_budget() -> None:
    rule = RecentItems(budget_tokens=10)
    items = [Item(name=str(index), tokens=3) for index in range(6)]
    assert [item.name for item in filled(rule, items).items] == ["3", "4", "5"]
    assert [item.name for item in filled(rule, [*items, Item(name="3", tokens=3)]).items] == ["4", "5", "3"]
    assert filled(rule, [*items, Item(name="big", tokens=11)]) == filled(rule, items)


@given(ITEMS, st.integers(1, 200))
def test_the_budget_holds(items: list[Item], budget: int) -> None:
    for rule in (Reservoir(budget_tokens=budget), RecentItems(budget_tokens=budget)):
        memory = filled(rule, items)
        assert memory.tokens <= budget
        assert ItemsMemory.model_validate_json(memory.model_dump_json()) == memory
