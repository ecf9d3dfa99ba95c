"""Causes from numbers, rule by rule."""

import pytest

from app.contracts.report import Mean
from app.kinds.attribute.report import Evidence
from workers.diagnosis.attribute.cause import Found, cause_of, shown


def mean(value, low, high):
    return Mean(mean=value, ci=(low, high), clusters="documents")


def found(**changes):
    base = {
        "kind": "module",
        "module": "down_proj",
        "nats": mean(0.1, 0.08, 0.12),
        "share": mean(0.3, 0.2, 0.4),
        "ratio": mean(1.0, 0.9, 1.1),
        "evidence": Evidence(change=0.1, outlier_share=0.05, low_rank_share=0.2, zeros=0.0),
    }
    return Found(**(base | changes))


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
def test_the_first_rule_that_holds_decides(changes, cause):
    assert cause_of(found(**changes))[0] == cause


@pytest.mark.parametrize(
    ("changes", "cause", "why"),
    [
        ({"evidence": Evidence(change=0.1, outlier_share=1.0)}, "outlier_channels", "100 % of"),
        ({"evidence": Evidence(change=0.1, outlier_share=0.99961)}, "outlier_channels", "over 99.9 % of"),
        ({"ratio": mean(-0.5, -0.9, -0.1)}, "sheltered", "−0.5 times what noise of the same norm costs"),
        ({"share": mean(-0.004, -0.006, -0.002)}, "negligible", "−0.4 % of the damage"),
        ({"ratio": Mean(mean=3.0, ci=None)}, "unclear", "3 times what noise of the same norm costs, and there is no"),
    ],
)
def test_the_reason_holds_the_number(changes, cause, why):
    told = cause_of(found(**changes))
    assert told[0] == cause
    assert told[1].startswith(why)


def test_damage_is_shown_by_the_interval_of_the_nats_alone_and_unknown_without_one():
    assert shown(found(nats=mean(0.1, 0.0, 0.41), share=mean(0.3, 0.13, 1.12))) is False
    assert shown(found(share=mean(0.3, 0.0, 0.7))) is True
    assert shown(found(nats=Mean(mean=0.1, ci=None))) is None
