"""The search against a world whose answers are known."""

import pytest

from workers.diagnosis.mitigate.search import Beliefs, Measured, Search
from workers.diagnosis.mitigate.treatments import Arm, with_arm

CANDIDATE = Measured(0.4, 1_000_000)
RANKS = (4, 8, 16, 32)
# What each treatment really takes away, whatever was expected of it.
TRUTH = {"norm.tweak": 0.02, "quantize.dynamic": 0.5}


def arms():
    repair = [Arm("repair.lowrank", (("rank", rank),), 5_000 * rank, 1 - 1 / rank**0.5) for rank in RANKS]
    free = [
        Arm("norm.tweak", (("steps", 20),), 0, 0.05),
        Arm("quantize.dynamic", (("mixed", True),), 0, 0.5),
        Arm("protect", (("layers", 2),), 100_000, 0.4),
    ]
    return [*repair, *free]


def world(plan, *, full, repair=1.0):
    kl, size = CANDIDATE.kl, CANDIDATE.bytes
    for arm in plan:
        share = TRUTH.get(arm.name, arm.prior * (repair if arm.name == "repair.lowrank" else 1.0))
        share = -0.1 if arm.name == "protect" else share
        kl *= 1 - share * (1.1 if full else 1.0) if arm.name != "protect" else 1.1
        size += arm.bytes
    return Measured(kl, size)


def run(trials, *, budget=1_200_000, answer=None, only=""):
    chosen = [arm for arm in arms() if only in arm.name]
    search = searching(chosen, trials=trials, fits=lambda size: size <= budget)
    made = []
    while (proposal := search.next()) is not None:
        made.append(proposal)
        search.tell(proposal, (answer or (lambda one: world(one.plan, full=one.rung == "full")))(proposal))
    return search, made


def test_what_is_expected_to_save_most_a_byte_comes_first():
    _, made = run(6)
    first = made[0]
    assert [arm.name for arm in first.plan] == ["quantize.dynamic"], "half of the damage for no byte at all"
    assert first.rung == "cheap"
    assert first.expected_kl < CANDIDATE.kl


def test_the_trials_are_spent_and_a_third_of_them_in_full():
    _, made = run(12)
    assert run(12)[1] == made, "the same answers give the same trials"
    assert len(made) == 12
    assert sum(one.rung == "full" for one in made) == 4
    assert len({(one.plan, one.rung) for one in made}) == len(made), "nothing is made twice"


def test_only_what_was_measured_cheaply_and_saved_goes_on():
    search, made = run(12)
    cheap = {one.plan for one in made if one.rung == "cheap"}
    for one in made:
        if one.rung == "full":
            assert one.plan in cheap
            assert world(one.plan, full=False).kl < CANDIDATE.kl
    assert not any(arm.name == "protect" and len(plan) == 1 for plan in search.promotable() for arm in plan)


def test_treatments_are_put_on_top_of_each_other_and_the_best_within_the_budget_is_found():
    _, made = run(14)
    full = [one.plan for one in made if one.rung == "full"]
    best = min(full, key=lambda plan: world(plan, full=True).kl)
    assert {arm.name for arm in best} >= {"quantize.dynamic", "repair.lowrank"}
    assert world(best, full=True).bytes <= 1_200_000


@pytest.mark.parametrize("budget", [1_000_000, 1_050_000])
def test_what_does_not_fit_is_not_tried(budget):
    _, made = run(12, budget=budget)
    assert made
    assert all(one.expected_bytes <= budget * 1.02 for one in made)


def test_of_a_treatment_that_disappoints_less_is_expected_each_time():
    _, made = run(20, answer=lambda one: world(one.plan, full=False, repair=0.0), only="repair")
    alone = [one for one in made if [arm.name for arm in one.plan] == ["repair.lowrank"]]
    hopes = [(CANDIDATE.kl - one.expected_kl) / (CANDIDATE.kl * one.plan[0].prior) for one in alone]
    assert len(hopes) > 1
    assert hopes == sorted(hopes, reverse=True)
    assert hopes[-1] < hopes[0] / 2
    assert all(one.rung == "cheap" for one in alone)


def test_a_refused_plan_is_neither_made_again_nor_gone_on_with():
    def refuses_repair(one):
        return None if any(arm.name == "repair.lowrank" for arm in one.plan) else world(one.plan, full=True)

    _, made = run(20, answer=refuses_repair)
    assert all(not any(arm.name == "repair.lowrank" for arm in one.plan) for one in made if one.rung == "full")


def searching(arms, **options):
    return Search(
        arms=arms,
        candidate={"cheap": CANDIDATE, "full": CANDIDATE},
        **({"trials": 8, "fits": lambda _: True} | options),
    )


def test_nothing_is_proposed_where_nothing_fits():
    assert searching(arms(), fits=lambda _: False).next() is None


def test_one_trial_of_a_treatment_says_something_of_all_its_knobs():
    beliefs, (first, second, *_) = Beliefs(), arms()
    before = beliefs.share(second)
    beliefs.observe(first, 0.4, 0.4, first=True)
    assert beliefs.share(second) < before
    beliefs.observe(first, 0.4, 0.4, first=True)
    assert beliefs.share(second) < before / 2


def test_treatments_have_one_order_whatever_order_they_come_in():
    names = ("repair.lowrank", "norm.tweak", "quantize.dynamic")
    repair, tweak, dynamic = (next(arm for arm in arms() if arm.name == name) for name in names)
    one = with_arm(with_arm((tweak,), repair), dynamic)
    assert one == with_arm(with_arm((dynamic,), tweak), repair)
    assert [arm.name for arm in one] == ["quantize.dynamic", "repair.lowrank", "norm.tweak"]


@pytest.mark.parametrize("quickest", [20, 60, 200])
def test_of_equal_promise_the_quickest_is_tried_first(quickest):
    tweaks = [Arm("norm.tweak", (("steps", steps),), 0, 0.05) for steps in (20, 60, 200)]
    search = searching(tweaks, seconds=lambda plan: 1.0 if plan[0]["steps"] == quickest else 2.0)
    assert [arm["steps"] for arm in search.next().plan] == [quickest]


def test_what_promises_more_a_byte_is_tried_first_however_long_it_takes():
    better, quick = (Arm("norm.tweak", (("steps", steps),), 0, prior) for steps, prior in ((200, 0.06), (20, 0.05)))
    search = searching([quick, better], seconds=lambda plan: float(plan[0]["steps"]))
    assert search.next().plan == (better,)


def test_settings_that_give_the_same_model_go_on_once():
    same = Measured(0.1, 1_050_000)
    _, made = run(12, answer=lambda one: same, only="repair")
    assert sum(one.rung == "cheap" for one in made) > 1
    assert sum(one.rung == "full" for one in made) == 1
