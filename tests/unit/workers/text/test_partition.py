from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from workers.text.partition import CHOOSE_BUDGET, divide, halve

corpora = st.lists(
    st.tuples(st.sampled_from(["prose", "code", "french", "letters"]), st.integers(2, 400)), min_size=1, max_size=60
)


@given(corpora, st.integers(0, 2**40), st.booleans(), st.integers(256, 5000))
def test_no_document_is_in_two_sets_and_the_budget_holds(
    corpus: list[tuple[str, int]], seed: int, with_test: bool, budget: int
) -> None:
    domains, tokens = [name for name, _ in corpus], [count for _, count in corpus]
    made = divide(domains, tokens, budget=budget, seed=seed, with_test=with_test)
    drawn = [*made.fit, *made.choose, *made.test]
    assert len(drawn) == len(set(drawn))
    assert sum(tokens[index] for index in made.fit) <= budget or len(made.fit) == 1
    assert sum(tokens[index] for index in made.choose) <= budget * CHOOSE_BUDGET or len(made.choose) == 1
    assert made == divide(domains, tokens, budget=budget, seed=seed, with_test=with_test)
    if not with_test:
        assert made.test == ()


def test_every_set_holds_every_domain_where_there_are_documents_enough() -> None:
    domains = ["prose"] * 20 + ["code"] * 10 + ["letters"] * 5 + ["lonely"]
    made = divide(domains, [50] * len(domains), budget=10_000, seed=1, with_test=True)
    counts = [Counter(domains[index] for index in part) for part in (made.fit, made.choose, made.test)]
    assert counts[2] == {"prose": 6, "code": 3, "letters": 2, "lonely": 1}
    assert counts[1] == {"prose": 3, "code": 1, "letters": 1}
    assert counts[0] == {"prose": 11, "code": 6, "letters": 2}


def test_domains_take_turns_so_that_a_small_budget_starves_none() -> None:
    domains = ["prose"] * 30 + ["code"] * 3
    made = divide(domains, [100] * len(domains), budget=400, seed=0, with_test=False)
    assert Counter(domains[index] for index in made.fit) == {"prose": 2, "code": 2}


def test_domains_that_are_not_to_be_fitted_only_stand_in_the_test() -> None:
    domains = ["prose"] * 10 + ["code"] * 10
    for with_test in (True, False):
        made = divide(domains, [10] * 20, budget=9999, seed=0, with_test=with_test, fit_domains=["prose"])
        assert {domains[index] for index in [*made.fit, *made.choose]} == {"prose"}
        assert sum(domains[index] == "code" for index in made.test) == (10 if with_test else 0)


@given(corpora, st.floats(0.05, 0.95), st.integers(0, 2**40))
def test_two_parts_hold_every_document_once(corpus: list[tuple[str, int]], share: float, seed: int) -> None:
    domains = [name for name, _ in corpus]
    choose, test = halve(domains, share=share, seed=seed)
    assert sorted([*choose, *test]) == list(range(len(domains)))
    assert {domains[index] for index in test} == set(domains)
    assert (choose, test) == halve(domains, share=share, seed=seed)


def test_the_first_documents_to_choose_by_are_of_different_domains() -> None:
    domains = ["prose"] * 10 + ["code"] * 10 + ["lonely"]
    choose, test = halve(domains, share=0.4, seed=3)
    assert Counter(domains[index] for index in choose) == {"prose": 4, "code": 4}
    assert {domains[index] for index in choose[:2]} == {"prose", "code"}
    assert domains.index("lonely") in test
