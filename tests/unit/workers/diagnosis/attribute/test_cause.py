"""Causes from numbers, rule by rule."""

import pytest

from app.contracts.report import Mean
from app.kinds.attribute.report import Cause, Evidence
from workers.diagnosis.attribute.cause import Found, cause_of, shown


def mean(value: float, low: float, high: float) -> Mean:
    return Mean(mean=value, ci=(low, high), clusters="documents")


def found(**changes: object) -> Found:
    base: dict[str, object] = {
        "kind": "module",
        "module": "down_proj",
        "nats": mean(0.1, 0.08, 0.12),
        "share": mean(0.3, 0.2, 0.4),
        "ratio": mean(1.0, 0.9, 1.1),
        "evidence": Evidence(change=0.1, outlier_share=0.05, low_rank_share=0.2, zeros=0.0),
    }
    return Found(**(base | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, "size"),
        # an interval that reaches to 0 shows no damage, and excludes none
        ({"nats": mean(0.1, 0.0, 0.2), "share": mean(0.3, -0.1, 0.7)}, "unclear"),
        ({"share": mean(0.0001, -0.0004, 0.0009), "nats": mean(0.001, 0.0, 0.002)}, "negligible"),
        ({"share": mean(0.0001, -0.0004, 0.0011), "nats": mean(0.001, 0.0, 0.002)}, "unclear"),
        ({"share": Mean(mean=0.0004, ci=None)}, "size"),
        # its nats decide: a share of what may be nothing shows nothing
        ({"nats": mean(0.1, 0.0, 0.41), "share": mean(0.3, 0.13, 1.12)}, "unclear"),
        ({"share": mean(0.3, 0.0, 0.7)}, "size"),
        ({"nats": mean(0.1, 0.0, 0.2), "share": None}, "unclear"),
        ({"nats": Mean(mean=0.1, ci=None), "share": Mean(mean=0.3, ci=None)}, "size"),
        ({"nats": Mean(mean=0.0, ci=None)}, "negligible"),
        ({"share": mean(0.0004, 0.0002, 0.0006)}, "negligible"),
        ({"evidence": Evidence(change=1.0, zeros=0.99)}, "removed"),
        ({"kind": "norm", "module": "input_layernorm"}, "norm"),
        ({"module": "gate"}, "router"),
        ({"ratio": mean(3.0, 2.0, 4.0)}, "aligned"),
        ({"ratio": mean(3.0, 1.1, 5.0)}, "unclear"),
        ({"ratio": mean(0.5, 0.4, 0.6)}, "sheltered"),
        ({"ratio": None}, "unclear"),
        ({"evidence": Evidence(change=0.1, outlier_share=0.7, low_rank_share=0.9)}, "outlier_channels"),
        ({"evidence": Evidence(change=0.1, outlier_share=0.1, low_rank_share=0.9)}, "low_rank"),
        # of a small module, noise is as low in rank
        ({"evidence": Evidence(change=0.1, low_rank_share=0.628, low_rank_noise=0.63)}, "size"),
        ({"evidence": Evidence(change=0.1, low_rank_share=0.8, low_rank_noise=0.63)}, "size"),
        ({"evidence": Evidence(change=0.1, low_rank_share=0.82, low_rank_noise=0.63)}, "low_rank"),
        ({"evidence": Evidence(change=0.1, low_rank_share=0.52, low_rank_noise=0.02)}, "low_rank"),
        ({"evidence": None}, "size"),
        # an error that points where it hurts says more than where it lies
        ({"ratio": mean(3.0, 2.0, 4.0), "evidence": Evidence(change=0.1, outlier_share=0.7)}, "aligned"),
    ],
)
def test_the_first_rule_that_holds_decides(changes: dict[str, object], cause: Cause) -> None:
    assert cause_of(found(**changes))[0] == cause


def test_the_reason_holds_the_number() -> None:
    assert "3 times what noise" in cause_of(found(ratio=mean(3.0, 2.0, 4.0)))[1]
    assert cause_of(found(evidence=Evidence(change=0.1, outlier_share=0.7)))[1].startswith("70 %")


def test_a_low_rank_is_told_beside_that_of_noise() -> None:
    small = found(evidence=Evidence(change=0.1, low_rank_share=0.9, low_rank_noise=0.63))
    assert cause_of(small)[1] == "90 % of its output error in 16 directions, where noise of its shape has 63 %"


def test_a_share_of_nearly_all_is_not_told_as_all() -> None:
    shares = {1.0: "100 % of", 0.99961: "over 99.9 % of", 0.9994: "99.9 % of"}
    for share, words in shares.items():
        _, why = cause_of(found(evidence=Evidence(change=0.1, outlier_share=share, low_rank_share=0.9)))
        assert why.startswith(words)


def test_a_gain_is_told_with_the_minus_of_the_tables() -> None:
    assert cause_of(found(ratio=mean(-0.5, -0.9, -0.1))) == (
        "sheltered",
        "−0.5 times what noise of the same norm costs",
    )
    assert cause_of(found(share=mean(-0.004, -0.006, -0.002)))[1] == "−0.4 % of the damage"


def test_what_cannot_be_told_from_nothing_says_by_which_interval() -> None:
    unsure = found(nats=mean(0.1, 0.0, 0.41), share=mean(0.3, 0.13, 1.12))
    assert cause_of(unsure)[1] == "no damage is shown, the interval of its nats does not lie above 0"


def test_a_twin_without_an_interval_is_not_said_to_have_one() -> None:
    assert cause_of(found(ratio=Mean(mean=3.0, ci=None))) == (
        "unclear",
        "3 times what noise of the same norm costs, and there is no interval",
    )
    assert cause_of(found(ratio=mean(3.0, 1.1, 5.0)))[1].endswith(", and the interval leaves it open")


def test_damage_is_shown_by_the_interval_of_the_nats_alone_and_unknown_without_one() -> None:
    assert shown(found(nats=mean(0.1, 0.0, 0.41), share=mean(0.3, 0.13, 1.12))) is False
    assert shown(found(share=mean(0.3, 0.0, 0.7))) is True
    assert shown(found(nats=Mean(mean=0.1, ci=None))) is None
