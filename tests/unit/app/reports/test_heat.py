import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.report import ContextToken, Passage
from app.reports.heat import STEPS, HeatScale, heat_passage, largest_kl


def passage(*kls: float | None, texts: tuple[str, ...] | None = None) -> Passage:
    texts = texts or tuple(f" t{index}" for index in range(len(kls)))
    tokens = tuple(ContextToken(text=text, kl=kl) for text, kl in zip(texts, kls, strict=True))
    return Passage(document="d", domain="prose", start=10, tokens=tokens)


@pytest.mark.parametrize(
    ("largest", "last"),
    [(18.0, 3.0), (3.0, 3.0), (2.99, 1.0), (1.0, 1.0), (0.5, 0.3), (1e-6, 1e-6), (0.0, 1.0)],
)
def test_the_last_step_begins_at_or_under_the_largest_value(largest, last):
    assert HeatScale.up_to(largest).edges[-1] == pytest.approx(last)


def test_steps_are_half_decades():
    assert HeatScale.up_to(5.0).edges == pytest.approx((0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0))


@given(st.floats(1e-9, 20), st.floats(0, 20), st.floats(0, 20))
def test_a_larger_kl_is_never_paler(largest, one, other):
    scale = HeatScale.up_to(largest)
    low, high = sorted((one, other))
    assert 0 <= scale.step(low) <= scale.step(high) <= STEPS
    assert scale.step(largest) == STEPS


def test_a_token_that_was_not_scored_stays_plain():
    heat = heat_passage(passage(None, 2.0), HeatScale.up_to(2.0))
    assert (heat.tokens[0].step, heat.tokens[0].title) == (0, "not scored")
    assert heat.tokens[1].title == "KL 2.00 nats"


def test_only_the_worst_token_carries_its_kl_and_the_first_of_equals_is_it():
    heat = heat_passage(passage(0.1, 2.5, 2.5, None), HeatScale.up_to(2.5))
    assert [token.label for token in heat.tokens] == ["", "2.5", "", ""]
    assert heat.caption == "d · prose · tokens 10–13 · worst 2.5 nats"


def test_a_passage_without_a_scored_token_has_no_worst_one():
    heat = heat_passage(passage(None, None), HeatScale.up_to(0.0))
    assert "worst" not in heat.caption
    assert not any(token.label for token in heat.tokens)


def test_control_characters_in_tokens_are_shown():
    heat = heat_passage(passage(1.0, 1.0, texts=("\x1b[1m", "\u202e")), HeatScale.up_to(1.0))
    assert [token.text for token in heat.tokens] == ["⟨U+001B⟩[1m", "⟨U+202E⟩"]


def test_the_largest_value_is_over_all_passages():
    assert largest_kl([passage(0.1, None), passage(3.0)]) == 3.0
    assert largest_kl([passage(None)]) == 0.0
