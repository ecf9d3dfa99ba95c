"""Gaps between models of another depth, as parts of a report."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from app.kinds.attribute.report import Cause, Site, Unclear
from app.models.checkpoint import inspect
from tests.support import internals_blocks
from tests.support.internals import DOCUMENT_N, at_borders, whole
from tests.support.pruning import operate
from tests.support.widening import widened
from tests.unit.workers.diagnosis.attribute.test_matched import Change, added_times, noisy, rounded
from tests.unit.workers.diagnosis.attribute.test_stitching import changed, mean_kl
from workers.diagnosis.attribute.alignment import align
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_sites
from workers.diagnosis.attribute.matching import Gap
from workers.diagnosis.attribute.runs import Runs
from workers.diagnosis.attribute.sentence import sentence
from workers.diagnosis.attribute.stitching import Stitching
from workers.diagnosis.attribute.sums import Clusters
from workers.diagnosis.attribute.treatment import Patient
from workers.diagnosis.mitigate.subject import recipe_of
from workers.surgery.store import CheckpointStore


@pytest.mark.parametrize(
    ("ci", "shown"),
    [((0.154, 0.443), True), ((0.0, 0.443), False), (None, None)],
    ids=["sure", "unsure", "no interval"],
)
def test_a_gap_is_shown_by_the_interval_of_its_nats(
    tiny: Callable[..., Path], ci: tuple[float, float] | None, shown: bool | None
) -> None:
    info = inspect(tiny("llama"))
    recipe = recipe_of([{"type": "prune.layers", "layers": [0, 1]}])
    gap = internals_blocks.alignment()["gaps"][0] | {
        "at_reference": 1,
        "at_candidate": 0,
        "layers": [{"kind": "dropped", "layer": 0, "of": None, "distance": None, "added": 0.3}],
        "nats": {"mean": 0.226, "ci": ci},
    }
    block = internals_blocks.alignment() | {"gaps": [gap]}
    found = SimpleNamespace(
        not_swapped="the models have 3 and 1 layers",
        internals=internals_blocks.dense(alignment=block),
        patient=lambda: Patient(info, recipe, info),
    )
    (made,) = gap_sites(cast("Found", found))
    assert made.shown is shown
    assert (made.cause, made.unclear) == (("unclear", "no_damage_shown") if shown is False else ("removed", None))
    assert made.treatment is not None
    verdict_ = sentence((made,), None, cast("Found", found))
    if shown is False:
        assert "no damage is shown with 768 tokens of 12 documents" in made.treatment.why
        assert verdict_.startswith("No gap is shown to cost anything alone: the one that costs most, dropped layer 0, ")
    else:
        assert made.treatment.recipe is not None
        assert verdict_.startswith("The worst gap is dropped layer 0, which alone costs")


RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
DROPPED = {"kind": "dropped", "layer": 0, "of": None, "distance": None, "added": 0.3}
IDENTITY = {"kind": "identity", "layer": 1, "of": 0, "distance": 1.4, "added": 0.0}
COPY = {"kind": "duplicate", "layer": 1, "of": 0, "distance": 0.0, "added": 0.3}
NOTHING = {"nats": {"mean": 0.0, "ci": (0.0, 0.0)}, "share": None, "share_ci": None}
UNSURE = {"nats": {"mean": 0.2, "ci": (0.0, 0.5)}, "share": 0.4, "share_ci": (0.1, 0.9)}
TRIFLE = {"nats": {"mean": 1e-4, "ci": (5e-5, 2e-4)}, "share": 2e-4, "share_ci": (1e-4, 4e-4)}
SURE = {"nats": {"mean": 0.2, "ci": (0.1, 0.3)}, "share": 0.4, "share_ci": (0.2, 0.6)}
NO_INTERVAL = {"nats": {"mean": 0.2, "ci": None}, "share": 0.4, "share_ci": None}


@pytest.mark.parametrize(
    ("layers", "changes", "cause", "unclear", "why", "treatment"),
    [
        ([IDENTITY], NOTHING, "negligible", None, "identity; its nats are 0; ", "it costs nothing"),
        ([DROPPED], NOTHING, "negligible", None, "dropped; its nats are 0; ", "it costs nothing"),
        ([DROPPED], TRIFLE, "negligible", None, "dropped; 0.02 % of the damage; ", "what it costs is negligible"),
        ([DROPPED], UNSURE, "unclear", "no_damage_shown", "dropped; no damage is shown, ", "more text would tell"),
        ([COPY], UNSURE, "unclear", "no_damage_shown", "duplicate; no damage is shown, ", "more text would tell"),
        ([DROPPED], SURE, "removed", None, "dropped; found again in ", ({"type": "prune.layers", "layers": [1]}, RTN)),
        ([COPY], SURE, "inserted", None, "duplicate; found again in ", (RTN,)),
        ([DROPPED, COPY], SURE, "removed", None, "dropped and duplicate; found again in ", "dropped other layers"),
        ([COPY], NO_INTERVAL, "inserted", None, "duplicate; found again in ", (RTN,)),
    ],
)
def test_a_gap_that_costs_nothing_for_sure_has_the_cause_that_any_part_would_have(
    tiny: Callable[..., Path],
    layers: list[dict[str, Any]],
    changes: dict[str, Any],
    cause: Cause,
    unclear: Unclear | None,
    why: str,
    treatment: tuple[dict[str, Any], ...] | str,
) -> None:
    """`treatment`: its recipe, or the end of why there is none."""
    info = inspect(tiny("llama"))
    step, before = (
        ({"type": "prune.layers", "layers": [0, 1]}, 0)
        if DROPPED in layers
        else ({"type": "extend.duplicate", "layers": [0]}, 2)
    )
    recipe = recipe_of([step, RTN])
    gap = internals_blocks.alignment()["gaps"][0] | {"at_candidate": before, "layers": layers} | changes
    found = SimpleNamespace(
        internals=internals_blocks.dense(alignment=internals_blocks.alignment() | {"gaps": [gap]}),
        patient=lambda: Patient(info, recipe, info),
    )
    (made,) = gap_sites(cast("Found", found))
    assert (made.cause, made.unclear) == (cause, unclear)
    assert made.why.startswith(why)
    assert made.why.endswith("found again in 100 % of resamplings of the documents")
    assert made.treatment is not None
    if isinstance(treatment, str):
        assert made.treatment.recipe is None
        assert made.treatment.why.endswith(treatment)
    else:
        assert made.treatment.recipe == treatment


def test_added_layers_of_another_width_cost_what_the_candidate_gains_without_them(tiny: Callable[..., Path]) -> None:
    info = inspect(tiny("llama"))
    gap = internals_blocks.alignment()["gaps"][0] | {
        "layers": [COPY],
        "nats": None,
        "saved": {"mean": 0.25, "ci": (0.125, 0.5)},
        "share": 0.4,
        "share_ci": (0.2, 0.6),
    }
    neither = gap | {"layers": [DROPPED, COPY], "saved": None, "share": None, "share_ci": None}
    found = SimpleNamespace(
        not_swapped="the hidden states have 64 and 96 dimensions",
        internals=internals_blocks.dense(alignment=internals_blocks.alignment() | {"gaps": [neither, gap]}),
        patient=lambda: Patient(info, (), info),
    )
    (made,) = gap_sites(cast("Found", found))
    assert (made.nats, made.ci, made.share, made.cause) == (0.25, (0.125, 0.5), 0.4, "inserted")
    assert "what the candidate gains without it: the widths differ" in made.why


@pytest.mark.parametrize("saved", [-0.25, 0.25])
@pytest.mark.parametrize(
    ("control", "shown"), [(0.125, True), (0.75, False), (0.125, False)], ids=["shown", "lost", "not shown"]
)
def test_added_layers_are_ranked_by_what_a_map_shows_and_else_by_what_needs_none(
    tiny: Callable[..., Path], saved: float, control: float, shown: bool
) -> None:
    info = inspect(tiny("llama"))
    low = 0.25 if shown or control > 0.5 else 0.0
    stitched = {
        "nats": {"mean": 0.5, "ci": (low, 0.75)},
        "share": 0.8,
        "share_ci": (0.4, 1.2),
        "control": {"mean": control, "ci": (control / 2, control * 2)},
        "shown": shown,
    }
    left_out = {"mean": saved, "ci": (saved - 0.125, saved + 0.125)}
    gap = internals_blocks.alignment()["gaps"][0] | {
        "layers": [COPY],
        "nats": None,
        "saved": left_out,
        "share": 0.4,
        "share_ci": (0.2, 0.6),
        "stitched": stitched,
    }
    found = SimpleNamespace(
        internals=internals_blocks.dense(alignment=internals_blocks.alignment() | {"gaps": [gap]}),
        patient=lambda: Patient(info, (), info),
    )
    sites = gap_sites(cast("Found", found))
    if shown:
        (made,) = sites
        assert (made.nats, made.ci, made.share, made.shown, made.cause) == (0.5, (0.25, 0.75), 0.8, True, "inserted")
        assert made.restored is not None
        assert made.restored.mean == saved
        assert made.map_control is not None
        assert made.map_control.mean == 0.125
        assert "measured through a map between the two widths: 0.5 nats, where the map alone loses 0.125; " in made.why
    elif saved > 0:
        (made,) = sites
        assert (made.nats, made.share, made.shown, made.map_control) == (0.25, 0.4, True, None)
        lost = ", so that they prove nothing" if control > 0.5 else ""
        told = f"and through a map between them 0.5 nats, where the map alone loses {control}{lost}; "
        assert f"measured as what the candidate gains without it: the widths differ, {told}" in made.why
    else:
        assert sites == ()


@pytest.mark.parametrize(
    ("nats", "control", "cause", "shown"),
    [
        (SURE, 0.1, "removed", True),
        (SURE, 0.3, "unclear", False),
        (UNSURE, 0.1, "unclear", False),
        (TRIFLE, 0.0, "negligible", True),
        (TRIFLE, 0.3, "unclear", False),
        (NO_INTERVAL, 0.1, "removed", None),
    ],
)
def test_a_gap_of_both_is_told_by_its_map(
    tiny: Callable[..., Path], nats: dict[str, Any], control: float, cause: Cause, shown: bool | None
) -> None:
    info = inspect(tiny("llama"))
    stitched = nats | {"control": {"mean": control, "ci": None}, "shown": shown}
    gap = internals_blocks.alignment()["gaps"][0] | {
        "layers": [DROPPED, COPY],
        "nats": None,
        "saved": None,
        "share": None,
        "stitched": stitched,
    }
    found = SimpleNamespace(
        internals=internals_blocks.dense(alignment=internals_blocks.alignment() | {"gaps": [gap]}),
        patient=lambda: Patient(info, (), info),
    )
    (made,) = gap_sites(cast("Found", found))
    assert (made.cause, made.shown) == (cause, shown)
    assert made.unclear == ("no_damage_shown" if cause == "unclear" else None)
    lost = control > (nats["nats"]["mean"])
    assert ("prove nothing" in made.why) is lost
    assert made.treatment is not None
    assert ("the map between the widths loses no less than this gap costs" in made.treatment.why) is lost
    assert ("more text would tell" in made.treatment.why) is (cause == "unclear" and not lost)


@pytest.mark.parametrize("broken", ["nats", "control"])
def test_logits_that_are_not_finite_through_a_map_count_as_lost(tiny: Callable[..., Path], broken: str) -> None:
    info = inspect(tiny("llama"))
    stitched = SURE | {"control": {"mean": 0.1, "ci": None}, "shown": False} | {broken: {"mean": None, "ci": None}}
    gap = internals_blocks.alignment()["gaps"][0] | {"nats": None, "stitched": stitched}

    def sites(layers: list[dict[str, Any]], saved: dict[str, Any] | None) -> tuple[Site, ...]:
        block = internals_blocks.alignment() | {"gaps": [gap | {"layers": layers, "saved": saved, "share": None}]}
        inside = internals_blocks.dense(alignment=block)
        assert inside.alignment is not None
        assert inside.alignment.gaps[0].stitched is not None
        assert inside.alignment.gaps[0].stitched.lost
        found = SimpleNamespace(internals=inside, patient=lambda: Patient(info, (), info))
        return gap_sites(cast("Found", found))

    (added,) = sites([COPY], {"mean": 0.25, "ci": (0.125, 0.5)})
    assert (added.nats, added.map_control) == (0.25, None)
    assert "not finite" in added.why
    both = sites([DROPPED, COPY], None)
    if broken == "nats":
        assert both == ()
    else:
        assert (both[0].cause, both[0].shown) == ("unclear", False)
        assert "the map alone leaves logits that are not finite, so that they prove nothing" in both[0].why


@pytest.mark.parametrize("mean", [-0.25, 0.0])
def test_added_layers_that_the_candidate_needs_are_no_damage(tiny: Callable[..., Path], mean: float) -> None:
    info = inspect(tiny("llama"))
    saved = {"mean": mean, "ci": (mean - 0.25, mean + 0.125)}
    gap = internals_blocks.alignment()["gaps"][0] | {"layers": [COPY], "nats": None, "saved": saved}
    found = SimpleNamespace(
        not_swapped="the hidden states have 64 and 96 dimensions",
        internals=internals_blocks.dense(alignment=internals_blocks.alignment() | {"gaps": [gap]}),
        patient=lambda: Patient(info, (), info),
    )
    assert gap_sites(cast("Found", found)) == ()
    assert sentence((), None, cast("Found", found)) == (
        "No part was swapped: the hidden states have 64 and 96 dimensions."
    )


def _together(*changes: Change) -> Change:
    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        for one in changes:
            tensor = one(name, tensor)
        return tensor

    return change


BEFORE = {
    "embedding of 4 bits": rounded("embed_tokens", 4),
    "embedding of 2 bits": rounded("embed_tokens", 2),
    "noisy embedding": noisy("embed_tokens"),
    "scaled embedding": lambda name, one: 1.25 * one if "embed_tokens" in name else one,
    "first layer doubled": added_times(2, 0),
    "second layer of 2 bits": rounded("layers.1.", 2),
}


@pytest.mark.parametrize("damage", BEFORE)
@pytest.mark.parametrize("adds", [1.0, 0.01], ids=["a copy", "a hundredth of one"])
def test_an_added_layer_is_not_blamed_for_what_went_wrong_before_it(
    tiny: Callable[..., Path], tmp_path: Path, adds: float, damage: str
) -> None:
    """What a layer adds crosses back, and of one that adds next to nothing next to nothing does: whatever states the
    damage gives it, it seems to cost no more than a fifth above what it does in one width."""
    folder = tiny("llama", num_hidden_layers=6)
    with operate(
        folder, CheckpointStore(tmp_path / "store", 10**9), {"type": "extend.duplicate", "layers": [4]}
    ) as made:
        alone = changed(made.path, tmp_path / "alone", added_times(adds, 5))
        hurt = changed(made.path, tmp_path / "hurt", _together(added_times(adds, 5), BEFORE[damage]))
    truth = mean_kl(whole(folder), whole(alone))
    candidate = widened(hurt, tmp_path / "wider", width=96)
    with at_borders(folder, candidate, scratch=tmp_path) as both:
        runs = Runs(*both, Clusters.of(DOCUMENT_N), lambda: None)
        found = Stitching(runs, seed=0).swapped(Gap((), (5,), 5, 6))
    nats = float(found.nats.values())
    assert 0.4 * truth < nats < 1.2 * truth
    if adds < 1:
        assert nats < 0.01 * float(runs.total.values())


@pytest.mark.parametrize("damage", ["embedding of 2 bits", "first layer doubled"])
def test_a_dropped_layer_costs_what_it_costs_alone_whatever_else_is_damaged(
    tiny: Callable[..., Path], tmp_path: Path, damage: str
) -> None:
    """It is left out of the reference itself: nothing of the candidate is in the number."""
    folder = tiny("llama", num_hidden_layers=6)
    with operate(folder, CheckpointStore(tmp_path / "store", 10**9), {"type": "prune.layers", "layers": [3]}) as made:
        hurt = changed(made.path, tmp_path / "hurt", BEFORE[damage])
        truth = mean_kl(whole(folder), whole(made.path))
    candidate = widened(hurt, tmp_path / "wider", width=96)
    with at_borders(folder, candidate, scratch=tmp_path) as both:
        found = align(*both, DOCUMENT_N)
    (gap,) = found.gaps
    assert gap.gap.reference == (3,)
    assert gap.stitched is None and gap.swapped is not None
    assert float(gap.swapped.values()) == pytest.approx(truth, rel=1e-3)
