"""The search at work, on measurements that are given."""

from math import inf
from types import SimpleNamespace

import numpy as np
import pytest

from app.contracts.text import ShippedText
from app.kinds.mitigate.request import Budget
from app.kinds.mitigate.treatments import described
from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.processor import needs_avx512
from tests.support.quantizing import operate
from workers.diagnosis.mitigate.front import limits_of
from workers.diagnosis.mitigate.search import Proposal
from workers.diagnosis.mitigate.treatments import ORDER
from workers.diagnosis.mitigate.trials import Done, TrialRunner, treatments_of
from workers.distributions.token_values import Positions
from workers.measuring.recipes import RefusedError
from workers.measuring.subject import Fit, Subject, recipe_of
from workers.surgery.store import CheckpointStore
from workers.telemetry import Telemetry

RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}


class Context:
    """Nobody cancels it."""

    def __init__(self):
        self.telemetry, self.settings = Telemetry(), Settings()
        self.lines = []
        self.observe, self.log = self.telemetry.observe, self.lines.append
        self.check_cancelled = self.progress = lambda *_: None


def refuse(*_):
    raise RefusedError("no kernel for it")


def ward(tiny, mean, *, budget=400_000, reference=None):
    base = SimpleNamespace(mean=mean, record=SimpleNamespace(bytes=100_000, bits_per_weight=6.0))
    fit = Fit(ShippedText(source="shipped", corpus="calibration"), 8, 64, 0)

    def measure(*_):
        pytest.fail("nothing was to be measured")

    context = Context()
    subject = Subject(inspect(tiny()), recipe_of([RTN]), 100_000, {0: 0.7, 1: 0.2, 2: 0.1})
    limits = limits_of(Budget(bytes=budget), 100_000)
    against = inspect(reference or tiny())
    return TrialRunner(subject, fit, limits, {"cheap": base, "full": base}, measure, context, 0, against)


def test_a_candidate_whose_logits_are_not_finite_is_not_treated(tiny):
    own = ward(tiny, inf)
    arms, why = own.arms(["repair.lowrank", "quantize.dynamic"])
    assert arms == []
    assert set(why) == {"repair.lowrank", "quantize.dynamic"}
    assert all("not finite" in reason for reason in why.values())
    own.run(arms, 8)
    assert own.done == []
    assert {one.treatment for one in own.unhelpful(["repair.lowrank", "quantize.dynamic"], why, [])} == set(why)


def test_a_finite_one_has_arms_and_what_is_beyond_the_budget_says_so(tiny):
    arms, why = ward(tiny, 0.4).arms(["repair.lowrank", "quantize.dynamic", "prune.gradient"])
    assert {arm.name for arm in arms} == {"repair.lowrank", "quantize.dynamic"}
    assert set(why) == {"prune.gradient"}
    _, why = ward(tiny, 0.4, budget=100_100).arms(["repair.lowrank"])
    assert "the budget is 100,100" in why["repair.lowrank"]


def test_a_budget_of_bits_a_weight_is_one_of_bytes(tiny):
    """Of the candidate's 6 bits per weight and 100,000 bytes: a tenth more bits are a tenth more bytes."""
    own = ward(tiny, 0.4)
    smallest = min(arm.bytes for arm in own.arms(["repair.lowrank"])[0])
    share = 1 + smallest / 100_000
    for more, fits in ((0.001, True), (-0.001, False)):
        own.limits = limits_of(Budget(bits_per_weight=6.0 * share + more), 100_000)
        arms, why = own.arms(["repair.lowrank"])
        assert arms
        assert ("repair.lowrank" not in why) is fits
    assert why["repair.lowrank"].startswith(f"at its smallest, it takes {6 * share:.4g} bits per weight, the budget")


@needs_avx512
def test_a_packed_checkpoint_takes_no_treatment_and_each_says_why(tiny, tmp_path):
    """One that came packed; where the recipe packs, dynamic scaling stands in the place of the packing step."""
    own, packing = ward(tiny, 0.4), RTN | {"form": "packed"}
    with operate(tiny(), CheckpointStore(tmp_path / "store", 10**9), packing) as made:
        own.subject = Subject(inspect(made.path), (), 100_000)
        arms, why = own.arms(ORDER)
    assert arms == []
    assert set(why) == set(ORDER)
    assert all(reason.startswith("the candidate came packed") for reason in why.values())
    own.subject = Subject(inspect(tiny()), recipe_of([packing]), 100_000, {0: 0.7, 1: 0.2, 2: 0.1})
    arms, why = own.arms(ORDER)
    assert {arm.name for arm in arms} == {"quantize.dynamic"}
    assert all("packed by a step before" in why[name] for name in ("repair.lowrank", "norm.tweak"))
    assert "no kernel" in why["protect"], "of five bits"


def test_what_cannot_be_aligned_with_the_reference_is_told_and_takes_no_trial(tiny):
    """A candidate of fewer layers, that came so."""
    arms, why = ward(tiny, 0.4, reference=tiny("llama", num_hidden_layers=5)).arms(["repair.lowrank", "norm.tweak"])
    assert {arm.name for arm in arms} == {"repair.lowrank"}
    assert "the reference 5 of" in why["norm.tweak"]


def test_trials_are_counted_timed_and_told_when_they_begin_and_when_they_have_ended(tiny):
    own = ward(tiny, 0.4)
    value, lines, running = own.context.telemetry.value, own.context.lines, []

    def refused(*_):
        running.append((value("mitigate_trial_running"), len(lines)))
        refuse()

    own.measure = refused
    arms, _ = own.arms(["repair.lowrank", "quantize.dynamic"])
    own.run(arms, 4)
    assert running == [(1.0, 2 * number + 1) for number in range(len(own.done))]
    assert value("mitigate_trials", outcome="refused") == len(own.done) > 0
    assert value("mitigate_trials", outcome="measured") == value("mitigate_trial_running") == 0.0
    timed = [value("mitigate_trial_seconds", rung=rung) or 0.0 for rung in ("cheap", "full")]
    assert sum(timed) == len(own.done)
    for number, (done, begun, ended) in enumerate(zip(own.done, lines[::2], lines[1::2], strict=True), 1):
        head = f"trial {number} of 4 (cheap)"
        told = described(treatments_of(done.proposal.plan))
        saved = 0.4 - done.proposal.expected_kl
        assert begun.startswith(f"{head} begins: {told}, expected to save ")
        assert begun.endswith(f" {saved:.3g} nats per token, {done.proposal.expected_bytes:,} bytes")
        assert ended.startswith(f"{head}: {told}: not applicable: no kernel for it")


def test_the_longest_tweak_of_norms_is_not_tried_before_shorter_ones_of_which_as_much_is_expected(tiny):
    own = ward(tiny, 0.4)
    own.measure = refuse
    arms, _ = own.arms(["norm.tweak"])
    own.run(arms, 4)
    tried = [dict(done.proposal.plan[0].knobs) for done in own.done]
    assert [knobs["steps"] for knobs in tried] == [20, 20, 60]
    assert len({arm.prior for arm in arms}) == 1


def measured(kl, size, speed=None):
    """A measurement of 200 positions in eight documents."""
    document = np.repeat(np.arange(8), 25)
    where = Positions(document, document, document, document, document)
    record = SimpleNamespace(bytes=size, bits_per_weight=6.0, tokens_per_second=speed, seconds=1.0)
    return SimpleNamespace(kl=np.full(200, kl), mean=float(np.mean(kl)), where=where, record=record)


@pytest.mark.parametrize(
    ("saved", "size", "latency", "line", "reason"),
    [
        (0.02, 100_000, 0.0, "saves 0.02 nats", "what it saved is not above zero for sure, or does not hold on"),
        (0.02, 500_000, 0.0, "saves 0.02 nats", "beyond the budget: it takes 500,000 bytes, the budget is 400,000"),
        (0.02, 100_000, 0.5, "saves 0.02 nats", "beyond the budget: a token takes 50 % longer, the budget is 10 %"),
        (-0.03, 100_000, 0.0, "loses 0.03 more nats", "alone it saved nothing on the documents to choose by"),
    ],
)
def test_why_a_trial_did_not_help_where_nothing_is_recommended(tiny, saved, size, latency, line, reason):
    own = ward(tiny, 0.4)
    kl = 0.4 + 0.1 * np.random.default_rng(0).random(200)
    own.base = {rung: measured(kl, 100_000, 1000.0) for rung in ("cheap", "full")}
    own.limits = own.limits.model_copy(update={"added_latency": 0.1})
    own.measure = lambda *_: measured(kl - saved, size, 1000.0 / (1 + latency))
    arms, why = own.arms(["norm.tweak"])
    own.run(arms[:1], 2)
    (found,) = own.unhelpful(["norm.tweak"], why, [])
    begun, ended = own.context.lines[:2]
    assert begun.startswith("trial 1 of 2 (cheap) begins: norm.tweak, expected to save ")
    assert ended.endswith(f": {line} per token, {size:,} bytes")
    assert found.reason.startswith(reason)


def tried(tiny, *trials):
    """A ward whose trials of one treatment each gave these KL and bytes, and their plans by name. A number behind a
    name is the place of its setting among the treatment's, the first by default."""
    own = ward(tiny, 0.4)
    own.base = {rung: measured(0.4, 100_000) for rung in ("cheap", "full")}
    plans = {}
    for name, rung, kl, size in trials:
        kind, _, place = name.partition(" ")
        plans.setdefault(name, (own.arms([kind])[0][int(place or 0)],))
        own.done.append(Done(Proposal(plans[name], rung, 0.3, size), recipe_of([RTN]), measured(kl, size)))
    return own, plans


def test_what_the_front_has_for_fewer_bytes_helps_too(tiny):
    own, plans = tried(tiny, ("norm.tweak", "full", 0.3, 100_000), ("repair.lowrank", "full", 0.1, 120_000))
    both = ["norm.tweak", "repair.lowrank"]
    assert own.unhelpful(both, {}, [plans["norm.tweak"], plans["repair.lowrank"]]) == ()
    (alone,) = own.unhelpful(both, {}, [plans["repair.lowrank"]])
    assert alone.treatment == "norm.tweak", "on the test it did not save for sure"
    assert {one.treatment for one in own.unhelpful(both, {}, [])} == set(both)


def test_a_cheap_trial_is_promoted_or_not(tiny):
    cheap = [("norm.tweak", "cheap", 0.3, 100_000), ("repair.lowrank", "cheap", 0.1, 120_000)]
    own, _ = tried(tiny, *cheap, ("repair.lowrank", "full", 0.1, 120_000))
    assert [one.outcome for one in own.trials([])] == ["not_promoted", "promoted", "dominated"]


CHOSEN = (("quantize.dynamic", "cheap", 0.36, 100_000), ("quantize.dynamic", "full", 0.2, 100_000))
LARGE = ("repair.lowrank 2", "full", 0.1, 500_000)


@pytest.mark.parametrize(
    ("name", "trials", "reason"),
    [
        ("norm.tweak", [("norm.tweak", "cheap", 0.37, 100_000)], "others saved more for as few bytes, or "),
        ("repair.lowrank", [LARGE], "beyond the budget: it takes 500,000 bytes, the budget is 400,000"),
        ("norm.tweak", [("norm.tweak", "cheap", 0.41, 99_999)], "alone it saved nothing on the documents"),
    ],
)
def test_why_a_treatment_did_not_help_beside_the_chosen_one(tiny, name, trials, reason):
    own, plans = tried(tiny, *trials, *CHOSEN)
    (found,) = own.unhelpful([name], {}, [plans["quantize.dynamic"]])
    assert found.reason.startswith(reason)


@pytest.mark.parametrize("recommended", [True, False])
def test_what_was_promoted_and_found_too_slow_or_refused_says_so(tiny, *, recommended):
    """Its cheap trial, which is not timed, was within the budget."""
    own, plans = tried(tiny, ("norm.tweak", "cheap", 0.3, 100_000), *CHOSEN)
    own.limits = own.limits.model_copy(update={"added_latency": 0.1})
    own.base["full"].record.tokens_per_second = 1000.0
    proposal = Proposal(plans["norm.tweak"], "full", 0.3, 100_000)
    helpful = [plans["quantize.dynamic"]] if recommended else []
    for slow, refusal, reason in (
        (measured(0.3, 100_000, 500.0), "", "beyond the budget: a token takes 100 % longer, the budget is 10 %"),
        (None, "no kernel for it", "it could not be done: no kernel for it"),
    ):
        own.done.append(Done(proposal, own.done[0].recipe, slow, refusal))
        assert own.unhelpful(["norm.tweak"], {}, helpful)[0].reason == reason
        own.done.pop()
