"""The search at work, on measurements that are given."""

from collections.abc import Callable
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.contracts.text import ShippedText
from app.kinds.mitigate.request import Budget, TreatmentName
from app.kinds.mitigate.treatments import described
from app.models.checkpoint import inspect
from tests.support.processor import needs_avx512
from tests.support.quantizing import operate
from workers.diagnosis.mitigate.front import limits_of
from workers.diagnosis.mitigate.search import Proposal, Rung
from workers.diagnosis.mitigate.treatments import ORDER, Plan
from workers.diagnosis.mitigate.trials import Done, TrialRunner, treatments_of
from workers.measuring.recipes import RefusedError
from workers.measuring.subject import Fit, Subject, recipe_of
from workers.measuring.subject import told as told_recipe
from workers.surgery.store import CheckpointStore
from workers.telemetry import Telemetry

Tiny = Callable[..., Path]
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}


class Context:
    def __init__(self) -> None:
        self.telemetry = Telemetry()

    def check_cancelled(self) -> None:
        """Nobody cancels."""

    def progress(self, phase: str, done: int, total: int) -> None:
        """Not looked at."""

    def log(self, message: str) -> None:
        """Not looked at."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.telemetry.observe(name, value, **labels)


def ward(tiny: Tiny, mean: float, *, budget: int = 400_000, reference: Path | None = None) -> TrialRunner:
    base: Any = SimpleNamespace(mean=mean, record=SimpleNamespace(bytes=100_000, bits_per_weight=6.0))
    fit = Fit(ShippedText(source="shipped", corpus="calibration"), 8, 64, 0)

    def measure(*_: Any) -> Any:
        pytest.fail("nothing was to be measured")

    context: Any = Context()
    subject = Subject(inspect(tiny()), recipe_of([RTN]), 100_000, {0: 0.7, 1: 0.2, 2: 0.1})
    limits = limits_of(Budget(bytes=budget), 100_000)
    against = inspect(reference or tiny())
    return TrialRunner(subject, fit, limits, {"cheap": base, "full": base}, measure, context, 0, against)


def test_a_candidate_whose_logits_are_not_finite_is_not_treated(tiny: Tiny) -> None:
    own = ward(tiny, inf)
    arms, why = own.arms(["repair.lowrank", "quantize.dynamic"])
    assert arms == []
    assert set(why) == {"repair.lowrank", "quantize.dynamic"}
    assert all("not finite" in reason for reason in why.values())
    own.run(arms, 8)
    assert own.done == []
    assert {one.treatment for one in own.unhelpful(["repair.lowrank", "quantize.dynamic"], why, [])} == set(why)


def test_a_finite_one_has_arms_and_what_is_beyond_the_budget_says_so(tiny: Tiny) -> None:
    arms, why = ward(tiny, 0.4).arms(["repair.lowrank", "quantize.dynamic", "prune.gradient"])
    assert {arm.name for arm in arms} == {"repair.lowrank", "quantize.dynamic"}
    assert set(why) == {"prune.gradient"}
    _, why = ward(tiny, 0.4, budget=100_100).arms(["repair.lowrank"])
    assert "the budget is 100,100" in why["repair.lowrank"]


def test_a_budget_of_bits_a_weight_is_one_of_bytes(tiny: Tiny) -> None:
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
def test_a_packed_checkpoint_takes_no_treatment_and_each_says_why(tiny: Tiny, tmp_path: Path) -> None:
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


def test_what_cannot_be_aligned_with_the_reference_is_told_and_takes_no_trial(tiny: Tiny) -> None:
    """A candidate of fewer layers, that came so."""
    arms, why = ward(tiny, 0.4, reference=tiny("llama", num_hidden_layers=5)).arms(["repair.lowrank", "norm.tweak"])
    assert {arm.name for arm in arms} == {"repair.lowrank"}
    assert "the reference 5 of" in why["norm.tweak"]


def test_trials_are_counted_and_timed_while_they_run(tiny: Tiny) -> None:
    own = ward(tiny, 0.4)
    context: Any = own.context
    running: list[float | None] = []

    def refuse(*_: Any) -> Any:
        running.append(context.telemetry.value("mitigate_trial_running"))
        raise RefusedError("no kernel for it")

    own.measure = refuse
    arms, _ = own.arms(["repair.lowrank", "quantize.dynamic"])
    own.run(arms, 4)
    assert running
    assert set(running) == {1.0}
    value = context.telemetry.value
    assert value("mitigate_trials", outcome="refused") == len(own.done) == len(running)
    assert value("mitigate_trials", outcome="measured") == value("mitigate_trial_running") == 0.0
    timed = [value("mitigate_trial_seconds", rung=rung) or 0.0 for rung in ("cheap", "full")]
    assert sum(timed) == len(own.done)


def tweak_of(
    tiny: Tiny, saved: float, *, size: int = 100_000, latency: float = 0.0, limit: float | None = None
) -> tuple[TrialRunner, str]:
    """One trial of norm.tweak alone that saves so much, and why it did not help where nothing is recommended."""
    rng = np.random.default_rng(0)
    where: Any = SimpleNamespace(document=np.repeat(np.arange(8), 25), window=np.repeat(np.arange(8), 25))
    kl = 0.4 + 0.1 * rng.random(200)

    def measured(values: Any, taken: int, speed: float) -> Any:
        record = SimpleNamespace(bytes=taken, bits_per_weight=6.0, tokens_per_second=speed, seconds=1.0)
        return SimpleNamespace(kl=values, mean=float(values.mean()), where=where, record=record)

    own = ward(tiny, 0.4)
    own.base = {rung: measured(kl, 100_000, 1000.0) for rung in ("cheap", "full")}  # type: ignore[misc]
    own.limits = own.limits.model_copy(update={"added_latency": limit})
    lines: list[str] = []
    own.context.log = lines.append  # type: ignore[method-assign]
    own.measure = lambda *_: measured(kl - saved, size, 1000.0 / (1 + latency))
    arms, why = own.arms(["norm.tweak"])
    own.run(arms[:1], 2)
    (found,) = own.unhelpful(["norm.tweak"], why, [])
    assert lines[0].startswith("trial 1 of 2 (cheap) begins: norm.tweak, expected to save ")
    return own, f"{lines[1]}\n{found.reason}"


def test_without_a_recommendation_no_other_treatment_is_said_to_have_saved_more(tiny: Tiny) -> None:
    _, told = tweak_of(tiny, 0.02)
    line, _, reason = told.partition("\n")
    assert line.startswith("trial 1 of 2 (cheap): norm.tweak: ")
    assert line.endswith(": saves 0.02 nats per token, 100,000 bytes")
    assert reason == "what it saved is not above zero for sure, or does not hold on the test documents"


def test_each_trial_is_told_when_it_begins_and_when_it_has_ended(tiny: Tiny) -> None:
    own = ward(tiny, 0.4)
    lines: list[str] = []
    own.context.log = lines.append  # type: ignore[method-assign]

    def refuse(*_: Any) -> Any:
        assert len(lines) % 2 == 1, "it was told before it is made"
        raise RefusedError("no kernel for it")

    own.measure = refuse
    arms, _ = own.arms(["repair.lowrank", "quantize.dynamic"])
    own.run(arms, 4)
    assert len(lines) == 2 * len(own.done) > 0
    for number, (done, begun, ended) in enumerate(zip(own.done, lines[::2], lines[1::2], strict=True), 1):
        head = f"trial {number} of 4 (cheap)"
        saved = 0.4 - done.proposal.expected_kl
        told = described(treatments_of(done.proposal.plan), told_recipe(done.recipe))
        assert "=" not in told, "no field of the program"
        assert begun.startswith(f"{head} begins: {told}, expected to save ")
        assert begun.endswith(f" {saved:.3g} nats per token, {done.proposal.expected_bytes:,} bytes")
        assert ended.startswith(f"{head}: {told}: not applicable: no kernel for it")


def test_the_longest_tweak_of_norms_is_not_tried_before_shorter_ones_of_which_as_much_is_expected(tiny: Tiny) -> None:
    own = ward(tiny, 0.4)
    own.measure = refuse
    arms, _ = own.arms(["norm.tweak"])
    own.run(arms, 4)
    tried = [dict(done.proposal.plan[0].knobs) for done in own.done]
    assert [knobs["steps"] for knobs in tried] == [20, 20, 60]
    assert len({arm.prior for arm in arms}) == 1


def refuse(*_: Any) -> Any:
    raise RefusedError("no kernel for it")


def test_what_is_beyond_the_budget_is_said_to_be(tiny: Tiny) -> None:
    _, told = tweak_of(tiny, 0.02, size=500_000)
    assert told.endswith("beyond the budget: it takes 500,000 bytes, the budget is 400,000")
    _, told = tweak_of(tiny, 0.02, latency=0.5, limit=0.1)
    assert told.endswith("beyond the budget: a token takes 50 % longer, the budget is 10 %")


def test_a_loss_is_no_negative_saving(tiny: Tiny) -> None:
    _, told = tweak_of(tiny, -0.03)
    assert ": loses 0.03 more nats per token, 100,000 bytes\n" in told
    assert told.endswith("alone it saved nothing on the documents to choose by")


def tried(tiny: Tiny, *trials: tuple[str, Rung, float, int]) -> tuple[TrialRunner, dict[str, Plan]]:
    """A ward whose trials of one treatment each gave these KL and bytes, and their plans by name. A number behind a
    name is the place of its setting among the treatment's, the first by default."""
    where: Any = SimpleNamespace(document=np.repeat(np.arange(8), 25), window=np.repeat(np.arange(8), 25))

    def measured(kl: float, size: int) -> Any:
        record = SimpleNamespace(bytes=size, bits_per_weight=6.0, tokens_per_second=None, seconds=1.0)
        return SimpleNamespace(kl=np.full(200, kl), mean=kl, where=where, record=record)

    own = ward(tiny, 0.4)
    own.base = {rung: measured(0.4, 100_000) for rung in ("cheap", "full")}
    plans: dict[str, Plan] = {}
    for name, rung, kl, size in trials:
        kind, _, place = name.partition(" ")
        plans.setdefault(name, (own.arms([cast(TreatmentName, kind)])[0][int(place or 0)],))
        own.done.append(Done(Proposal(plans[name], rung, 0.3, size), recipe_of([RTN]), measured(kl, size)))
    return own, plans


def test_what_the_front_has_for_fewer_bytes_helps_too(tiny: Tiny) -> None:
    own, plans = tried(tiny, ("norm.tweak", "full", 0.3, 100_000), ("repair.lowrank", "full", 0.1, 120_000))
    both: Any = ["norm.tweak", "repair.lowrank"]
    assert own.unhelpful(both, {}, [plans["norm.tweak"], plans["repair.lowrank"]]) == ()
    (alone,) = own.unhelpful(both, {}, [plans["repair.lowrank"]])
    assert alone.treatment == "norm.tweak", "on the test it did not save for sure"
    assert "saved more for as few bytes" not in alone.reason
    assert {one.treatment for one in own.unhelpful(both, {}, [])} == set(both)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (100_000, "others saved more for as few bytes"),
        (100_001, "it saved something in a cheap trial, and the full trials went to others"),
    ],
)
def test_others_are_said_to_have_saved_more_for_as_few_bytes_where_one_did(tiny: Tiny, size: int, reason: str) -> None:
    own, plans = tried(
        tiny,
        ("norm.tweak", "cheap", 0.3, 100_000),
        ("quantize.dynamic", "cheap", 0.2, size),
        ("quantize.dynamic", "full", 0.2, size),
    )
    (found,) = own.unhelpful(["norm.tweak", "quantize.dynamic"], {}, [plans["quantize.dynamic"]])
    assert (found.treatment, found.reason) == ("norm.tweak", reason)
    told = own.trials([])[0]
    assert told.outcome == "not_promoted"
    assert told.reason.endswith("full trials went to " + ("them" if size == 100_000 else "others"))


@pytest.mark.parametrize(
    ("promoted", "went"),
    [("quantize.dynamic", "full trials went to them"), ("repair.lowrank", "the full trials went to others")],
)
def test_full_trials_are_said_to_have_gone_to_what_saved_more_where_they_did(
    tiny: Tiny, promoted: str, went: str
) -> None:
    cheap: list[tuple[str, Rung, float, int]] = [
        ("norm.tweak", "cheap", 0.3, 100_000),
        ("quantize.dynamic", "cheap", 0.2, 100_000),
        ("repair.lowrank", "cheap", 0.1, 120_000),
    ]
    own, _ = tried(tiny, *cheap, (promoted, "full", 0.1, 120_000))
    assert own.trials([])[0].reason == f"others saved more for as few bytes, and {went}"
    own, _ = tried(tiny, *cheap)
    ended = "no trial was left to be made in full"
    assert [one.reason for one in own.trials([])] == [f"others saved more for as few bytes, and {ended}", ended, ended]


def why(tiny: Tiny, name: Any, *trials: tuple[str, Rung, float, int], chosen: str = "quantize.dynamic") -> str:
    """Why a treatment did not help, beside the chosen one."""
    own, plans = tried(tiny, *trials)
    (found,) = own.unhelpful([name], {}, [plans[chosen]])
    return found.reason


CHOSEN: tuple[tuple[str, Rung, float, int], ...] = (
    ("quantize.dynamic", "cheap", 0.36, 100_000),
    ("quantize.dynamic", "full", 0.2, 100_000),
)


def test_what_was_promoted_and_then_beaten_is_judged_in_full(tiny: Tiny) -> None:
    """Though nothing beat it in its cheap trial."""
    tweaks: list[tuple[str, Rung, float, int]] = [
        ("norm.tweak", "cheap", 0.35, 100_000),
        ("norm.tweak", "full", 0.33, 100_000),
    ]
    assert why(tiny, "norm.tweak", *tweaks, *CHOSEN) == "others saved more for as few bytes"
    # Of fewer bytes it was on the front, and so in the test.
    tweaks = [(name, rung, kl, 99_999) for name, rung, kl, _ in tweaks]
    assert "on the test documents" in why(tiny, "norm.tweak", *tweaks, *CHOSEN)


def test_what_was_made_in_full_decides_and_not_what_was_tried_cheaply_alone(tiny: Tiny) -> None:
    """Nothing beat the cheap trial of rank 4, which was not promoted; the full one of rank 8 was beaten."""
    small: tuple[str, Rung, float, int] = ("repair.lowrank 0", "cheap", 0.1, 110_000)
    large: tuple[str, Rung, float, int] = ("repair.lowrank 1", "full", 0.3, 120_000)
    assert why(tiny, "repair.lowrank", small, large, *CHOSEN) == "others saved more for as few bytes"


def test_what_is_beyond_the_budget_makes_no_place_in_the_test(tiny: Tiny) -> None:
    """Ranks 8 and 16: the first is beaten, and the second, of the lowest KL, takes too much."""
    small: tuple[str, Rung, float, int] = ("repair.lowrank 1", "full", 0.3, 120_000)
    large: tuple[str, Rung, float, int] = ("repair.lowrank 2", "full", 0.1, 500_000)
    told = "others saved more for as few bytes"
    assert why(tiny, "repair.lowrank", small, large, *CHOSEN) == told
    assert why(tiny, "repair.lowrank", large, small, *CHOSEN) == told
    assert why(tiny, "repair.lowrank", large, *CHOSEN).startswith("beyond the budget: it takes 500,000 bytes")


def test_what_saved_in_a_cheap_trial_alone_and_nothing_in_full_says_so(tiny: Tiny) -> None:
    """Fewer bytes than the chosen recipe takes, so that nothing beat it."""
    told = why(tiny, "norm.tweak", ("norm.tweak", "cheap", 0.35, 99_999), ("norm.tweak", "full", 0.41, 99_999), *CHOSEN)
    assert told == "made in full, it saved nothing within the budget on the documents to choose by"
    told = why(
        tiny,
        "repair.lowrank",
        ("repair.lowrank 1", "cheap", 0.41, 99_999),
        ("repair.lowrank 2", "cheap", 0.1, 500_000),
        *CHOSEN,
    )
    assert told == "it saved nothing within the budget on the documents to choose by"


@pytest.mark.parametrize("recommended", [True, False])
def test_what_was_promoted_and_found_too_slow_or_refused_says_so(tiny: Tiny, *, recommended: bool) -> None:
    """Its cheap trial, which is not timed, was within the budget."""
    own, plans = tried(tiny, ("norm.tweak", "cheap", 0.3, 100_000), *CHOSEN)
    own.limits = own.limits.model_copy(update={"added_latency": 0.1})
    base: Any = own.base["full"]
    base.record.tokens_per_second = 1000.0
    cheap = own.done[0]
    slow: Any = SimpleNamespace(**vars(cheap.measured))
    slow.record = SimpleNamespace(**vars(slow.record) | {"tokens_per_second": 500.0})
    proposal = Proposal(plans["norm.tweak"], "full", 0.3, 100_000)
    helpful = [plans["quantize.dynamic"]] if recommended else []
    for measured, reason in (
        (slow, "beyond the budget: a token takes 100 % longer, the budget is 10 %"),
        (None, "it could not be done: no kernel for it"),
    ):
        own.done.append(Done(proposal, cheap.recipe, measured, "" if measured else "no kernel for it"))
        assert own.unhelpful(["norm.tweak"], {}, helpful)[0].reason == reason
        own.done.pop()


def test_what_is_beyond_the_budget_beats_nothing(tiny: Tiny) -> None:
    own, plans = tried(
        tiny,
        ("norm.tweak", "cheap", 0.3, 500_000),
        ("quantize.dynamic", "cheap", 0.35, 100_000),
        ("repair.lowrank", "full", 0.1, 100_000),
    )
    (found,) = own.unhelpful(["quantize.dynamic", "repair.lowrank"], {}, [plans["repair.lowrank"]])
    assert found.reason.startswith("it saved something in a cheap trial")
