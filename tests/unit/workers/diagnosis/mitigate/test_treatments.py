"""Treatments as functions from recipe to recipe, on tiny checkpoints of several architectures."""

import pytest

from app.contracts.text import ShippedText
from app.kinds.preflight import check_idle
from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from workers.diagnosis.mitigate.treatments import ORDER, apply_plan, arms_of, smallest_arm, why_none, worst_layers
from workers.measuring.subject import Fit, Subject, recipe_of, reported_steps

FULL = Fit(ShippedText(source="shipped", corpus="calibration"), 8, 64, 3)
CHEAP = Fit(FULL.calibration, 8, 64, 3, cheap=True)
SHARES = {0: 0.7, 1: 0.2, 2: 0.1}
RTN = {"type": "quantize.rtn", "bits": 3, "group_size": 32}
WANDA = {"type": "prune.wanda", "sparsity": 0.5}


def subject(tiny, *steps, kind="llama", shares=None):
    return Subject(inspect(tiny(kind)), recipe_of(steps), 100_000, SHARES if shares is None else shares)


def arm(found, **knobs):
    return next(one for one in found if knobs.items() <= dict(one.knobs).items())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize(
    "steps",
    [
        [RTN],
        [WANDA],
        [WANDA, RTN],
        [],
        [{"type": "quantize.nf4", "group_size": 32}],
        [{"type": "quantize.smoothquant"}],
        [{"type": "prune.magnitude", "pattern": "2:4"}],
        [{"type": "prune.wanda", "sparsity": 0.5, "allocation": "owl"}, {"type": "quantize.gptq", "bits": 4}],
        [{"type": "lowrank.svd", "ratio": 0.3}],
    ],
    ids=lambda steps: "+".join(step["type"] for step in steps) or "none",
)
def test_every_arm_is_a_recipe_that_the_checks_take(tiny, kind, steps):
    patient = subject(tiny, *steps, kind=kind)
    for name in ORDER:
        for one in arms_of(patient, name):
            for fit in (CHEAP, FULL):
                recipe = apply_plan(patient, (one,), fit)
                assert recipe != patient.recipe
                check_recipe(patient.origin, recipe, pointer="")
                check_idle(recipe, pointer="")  # as of every recipe that a job or a deployment is asked for
            assert one.prior > 0
            assert one.bytes >= 0 or name == "quantize.dynamic"


def test_repair_comes_last_with_its_rank_and_the_cheap_rung_trains_nothing(tiny):
    patient = subject(tiny, RTN)
    one = arm(arms_of(patient, "repair.lowrank"), rank=8)
    full, cheap = (reported_steps(apply_plan(patient, (one,), fit))[-1] for fit in (FULL, CHEAP))
    assert full == {"type": "repair.lowrank", "rank": 8, "calibration_windows": 8, "calibration_window": 64, "seed": 3}
    assert cheap["block_epochs"] == cheap["distill_steps"] == 0
    assert cheap["calibration_windows"] == 2


def test_behind_pruning_and_low_rank_a_repair_is_tried_with_text_that_the_reference_writes_too(tiny):
    """Half as many windows as the trial's text has; no more is expected of it, so the quicker one is tried before."""
    for step in (WANDA, {"type": "prune.layers", "count": 1}, {"type": "lowrank.svd", "ratio": 0.3}):
        patient = subject(tiny, step)
        found = arms_of(patient, "repair.lowrank")
        own = arm(found, rank=16, own_text=True)
        plain = next(one for one in found if one["rank"] == 16 and one != own)
        assert (own.bytes, own.prior) == (plain.bytes, plain.prior)
        full, cheap = (reported_steps(apply_plan(patient, (own,), fit))[-1] for fit in (FULL, CHEAP))
        assert (full["calibration_windows"], full["own_windows"]) == (8, 4)
        assert (cheap["calibration_windows"], cheap["own_windows"]) == (2, 1)
        assert "own_windows" not in reported_steps(apply_plan(patient, (plain,), FULL))[-1]
        assert not any("own_text" in dict(one.knobs) for one in found if int(one["rank"] or 0) < 16)
    rounded = arms_of(subject(tiny, RTN), "repair.lowrank")
    assert not any("own_text" in dict(one.knobs) for one in rounded)


def test_a_cheap_trial_of_tweaked_norms_has_a_quarter_of_the_steps(tiny):
    patient = subject(tiny, RTN)
    for one in arms_of(patient, "norm.tweak"):
        full, cheap = (reported_steps(apply_plan(patient, (one,), fit))[-1] for fit in (FULL, CHEAP))
        assert full.get("steps", 20) == one["steps"] == 4 * cheap["steps"]
        assert (full["calibration_windows"], cheap["calibration_windows"]) == (8, 2)


def test_repair_is_paid_by_rank_and_sides(tiny):
    patient = subject(tiny, RTN)
    # q 64+64, k and v 64+32, o 64+64, gate and up 64+128, down 128+64, in three layers
    sides = 3 * (128 + 96 + 96 + 128 + 192 + 192 + 192)
    assert arm(arms_of(patient, "repair.lowrank"), rank=4).bytes == 2 * 4 * sides


def test_dynamic_scaling_takes_the_place_of_the_quantization_and_keeps_what_it_says(tiny):
    step = RTN | {"bits": 4, "layers": [0, 2], "symmetric": True}
    patient = subject(tiny, WANDA, step)
    one = arm(arms_of(patient, "quantize.dynamic"), mixed=False, extra_bits=0.0, half_group=False)
    made = reported_steps(apply_plan(patient, (one,), FULL))
    assert [item["type"] for item in made] == ["prune.wanda", "quantize.dynamic"]
    assert {"bits": 4.0, "group_size": 32, "symmetric": True, "layers": [0, 2]}.items() <= made[1].items()
    assert "block_epochs" not in made[1], "as the step is by default"
    assert reported_steps(apply_plan(patient, (one,), CHEAP))[1]["block_epochs"] == 0
    assert one.bytes == 0
    finer = arm(arms_of(patient, "quantize.dynamic"), mixed=False, extra_bits=0.0, half_group=True)
    elements = patient.elements(patient.recipe[1])
    assert finer.bytes == round(elements * (16 / 16 - 16 / 32) / 8), "a scale more, and no zero point"


def test_what_stands_for_smoothquant_has_no_zero_points_as_kernels_want_it(tiny):
    patient = subject(tiny, {"type": "quantize.smoothquant", "form": "packed"})
    one = arm(arms_of(patient, "quantize.dynamic"), mixed=False, extra_bits=0.0, half_group=False)
    recipe = apply_plan(patient, (one,), FULL)
    step = reported_steps(recipe)[0]
    assert {"bits": 8.0, "activation_bits": 8, "symmetric": True, "group_size": None}.items() <= step.items()
    check_recipe(patient.origin, recipe, pointer="")


@pytest.mark.parametrize(
    ("step", "extra"),
    [
        ({"type": "quantize.rtn", "bits": 2, "group_size": 32}, []),
        (RTN, [0.5]),  # a mean of 3 bits: all have 3
        (RTN | {"bits": 4}, [0.0, 0.5]),
        (RTN | {"bits": 4, "form": "packed"}, [0.5]),  # kernels take 4 and 8 bits
    ],
)
def test_mixed_widths_are_tried_where_there_is_something_to_choose(tiny, step, extra, monkeypatch):
    """Else they are measured at length for what plain widths give."""
    monkeypatch.setattr("app.models.steps.quantize.served_devices", lambda: ("cpu",))
    monkeypatch.setattr("app.models.steps.quantize.has_avx512", lambda: True)
    found = [dict(one.knobs) for one in arms_of(subject(tiny, step), "quantize.dynamic")]
    assert sorted({knobs["extra_bits"] for knobs in found if knobs["mixed"]}) == extra
    assert {knobs["extra_bits"] for knobs in found if not knobs["mixed"]} == {0.0, 1.0}


def test_zero_points_that_nf4_has_not_are_paid_for(tiny):
    patient = subject(tiny, {"type": "quantize.nf4", "group_size": 32})
    one = arm(arms_of(patient, "quantize.dynamic"), mixed=False, extra_bits=0.0, half_group=False)
    assert one.bytes == round(patient.elements() * 4 / 32 / 8)


def test_recovery_is_bounded_by_steps_alone(tiny):
    patient = subject(tiny, WANDA)
    one = arm(arms_of(patient, "prune.gradient"), recovery_steps=200, budget="gradient")
    (made,) = reported_steps(apply_plan(patient, (one,), FULL))
    assert made["recovery_steps"] == 200
    assert "recovery_s" not in made, "a clock would make another result of it each time"


@pytest.mark.parametrize(
    "step",
    [
        {"type": "prune.magnitude", "pattern": "2:4", "modules": ["mlp"]},
        {"type": "prune.wanda", "pattern": "4:8", "allocation": "owl"},  # each layer has its own n: the mean is kept
    ],
)
def test_gradient_pruning_takes_the_place_of_the_pruning(tiny, step):
    patient = subject(tiny, step, RTN)
    found = arms_of(patient, "prune.gradient")
    assert {one["budget"] for one in found} == {"uniform"}, "a pattern is the same everywhere"
    made = reported_steps(apply_plan(patient, (found[0],), FULL))
    kept = {key: value for key, value in step.items() if key in {"pattern", "modules"}}
    assert made[0]["type"] == "prune.gradient" and kept.items() <= made[0].items()
    assert "allocation" not in made[0]
    assert made[1] == RTN


def test_the_worst_layers_get_more_bits_and_the_others_keep_theirs(tiny):
    patient = subject(tiny, RTN)
    one = arm(arms_of(patient, "protect"), layers=1, by=2)
    made = reported_steps(apply_plan(patient, (one,), FULL))
    assert [(item["layers"], item["bits"]) for item in made] == [([0], 5), ([1, 2], 3)]
    assert one.bytes == patient.elements(layers=[0]) * 2 / 8
    assert one.prior == pytest.approx(0.7 * (1 - 1 / 16))
    assert worst_layers(patient, 2) == (0, 1)


def test_sparsity_is_moved_between_layers_and_not_given_up(tiny):
    patient = subject(tiny, WANDA)
    one = arm(arms_of(patient, "protect"), layers=1, by=1)
    inside, outside = reported_steps(apply_plan(patient, (one,), FULL))
    assert inside["layers"] == [0]
    assert float(str(inside["sparsity"])) < 0.5 < float(str(outside["sparsity"]))
    mean = (float(str(inside["sparsity"])) + 2 * float(str(outside["sparsity"]))) / 3
    assert mean == pytest.approx(0.5, abs=1e-5)


def test_together_they_stand_in_one_recipe(tiny):
    patient = subject(tiny, RTN)
    plan = (
        arm(arms_of(patient, "protect"), layers=1, by=1),
        arm(arms_of(patient, "quantize.dynamic"), mixed=False, extra_bits=0.0, half_group=False),
        arm(arms_of(patient, "repair.lowrank"), rank=4, iterations=1),
    )
    made = reported_steps(apply_plan(patient, plan, FULL))
    assert [item["type"] for item in made] == ["quantize.dynamic", "quantize.dynamic", "repair.lowrank"]
    assert [item.get("bits") for item in made] == [4.0, 3.0, None]


@pytest.mark.parametrize(
    ("name", "steps", "shares", "why"),
    [
        ("quantize.dynamic", [WANDA], SHARES, "no step"),
        ("prune.gradient", [RTN], SHARES, "no step"),
        ("protect", [RTN], {}, "not known"),
        ("protect", [{"type": "prune.layers", "count": 1}, RTN], SHARES, "by number"),
        ("protect", [{"type": "lowrank.svd", "rank": 8}], SHARES, "strength"),
    ],
)
def test_what_has_nothing_to_work_on_says_why(tiny, name, steps, shares, why):
    patient = subject(tiny, *steps, shares=shares)
    assert arms_of(patient, name) == []
    assert why in why_none(patient, name)


def test_a_report_holds_no_document():
    text = {"source": "inline", "documents": [{"id": "a", "text": "secret words"}]}
    assert "secret" not in str(reported_steps(recipe_of([{"type": "norm.tweak", "calibration": text}])))


def test_the_smallest_setting_is_that_of_fewest_bytes_unless_one_is_not_known_yet(tiny):
    patient = subject(tiny, RTN, shares={})
    smallest = smallest_arm(patient, ["repair.lowrank"])
    assert smallest.bytes == min(one.bytes for one in arms_of(patient, "repair.lowrank")) > 0
    none = smallest_arm(patient, ["repair.lowrank", "norm.tweak"])
    assert none.bytes == 0
    assert smallest_arm(patient, ["repair.lowrank", "protect"]) is None
    assert smallest_arm(patient, ["prune.gradient", "calibration"]) is None
