"""Matched layers of a model of another width: the broken one costs what it costs where the width is the same, and no
other costs anything."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from app.kinds.attribute.blocks import Internals, MatchedLayers, MatchedSpan, Measured
from app.kinds.attribute.report import Site
from app.models.attribution import mapped_span_passes
from app.models.checkpoint import inspect
from app.web.sections.attribute_words import cause_text
from tests.support.internals import DOCUMENT_N, TOKENS_NL, at_borders, whole
from tests.support.widening import widened
from tests.unit.workers.diagnosis.attribute.test_stitching import LostError, changed, mean_kl
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.matched import matched_layers, rows_of
from workers.diagnosis.attribute.matched_sites import matched_sites, span_name
from workers.diagnosis.attribute.matching import Matching, gaps_between
from workers.diagnosis.attribute.runs import Runs
from workers.diagnosis.attribute.sentence import sentence
from workers.diagnosis.attribute.sums import Clusters
from workers.diagnosis.attribute.treatment import Patient
from workers.diagnosis.numerals import numeral

Tiny = Callable[..., Path]
LAYERS = 6
TEXT = Measured(windows=len(TOKENS_NL), tokens=TOKENS_NL.numel(), documents=len(set(DOCUMENT_N)))
ALL = tuple((layer, layer) for layer in range(LAYERS))


Change = Callable[[str, torch.Tensor], torch.Tensor]


def added_times(times: float, *layers: int) -> Change:
    """What these layers add, so many times."""

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        here = any(f"layers.{layer}." in name for layer in layers)
        return times * tensor if here and name.endswith(("o_proj.weight", "down_proj.weight")) else tensor

    return change


def rounded(part: str, bits: int) -> Change:
    """Matrices of a part in groups of 32, each to 2^bits even steps between its least and its greatest."""

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if part not in name or tensor.ndim != 2:
            return tensor
        groups = tensor.float().reshape(-1, 32)
        low = groups.min(1, keepdim=True).values
        step = ((groups.max(1, keepdim=True).values - low) / (2**bits - 1)).clamp_min(1e-9)
        return (((groups - low) / step).round() * step + low).reshape(tensor.shape).to(tensor.dtype)

    return change


def noisy(part: str) -> Change:
    """Matrices with noise of a quarter of their spread."""

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if part not in name or tensor.ndim != 2:
            return tensor
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
        return (tensor.float() + 0.25 * tensor.float().std() * noise).to(tensor.dtype)

    return change


def one_half_gone(part: str) -> Change:
    """Every second row of its matrices is 0."""

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if part not in name or tensor.ndim != 2:
            return tensor
        made = tensor.clone()
        made[::2] = 0
        return made

    return change


doubled, silent = added_times(2, 2), added_times(0, 4)
WAYS: dict[str, Callable[[int], Change]] = {
    "doubled": lambda layer: added_times(2, layer),
    "reversed": lambda layer: added_times(-1, layer),
    "two bits": lambda layer: rounded(f"layers.{layer}.", 2),
    "noisy": lambda layer: noisy(f"layers.{layer}."),
    "half gone": lambda layer: one_half_gone(f"layers.{layer}."),
}


@contextmanager
def runs_of(
    folder: Path, candidate: Path, scratch: Path, check: Callable[[], None] = lambda: None, **options: Any
) -> Iterator[Runs]:
    with at_borders(folder, candidate, scratch=scratch, **options) as (ours, theirs):
        windows = len(ours.runner.tokens_NL)
        yield Runs(ours, theirs, Clusters.of(DOCUMENT_N[:windows]), check)


def matching(pairs: tuple[tuple[int, int], ...] = ALL) -> Matching:
    last = pairs[-1]
    return Matching(pairs, gaps_between(pairs, last[0] + 1, last[1] + 1), 0.0)


def sites(block: MatchedLayers, folder: Path, recipe: Any = ()) -> tuple[Site, ...]:
    info = inspect(folder)
    found = SimpleNamespace(internals=Internals(matched_layers=block), patient=lambda: Patient(info, recipe, info))
    return tuple(sorted(matched_sites(cast("Found", found)), key=lambda site: -site.nats))


OUTSIDE = (
    ". Embedding, final norm and head are not among the parts, and what is wrong with the embedding may show as a cost "
    "of layers; parts were not swapped: "
)


def verdict(found: tuple[Site, ...], block: MatchedLayers) -> str:
    alignment = SimpleNamespace(total=block.total, measured=TEXT, matched=None, matched_stitched=None)
    inside = SimpleNamespace(alignment=alignment, matched_layers=block)
    return sentence(found, None, cast("Found", SimpleNamespace(not_swapped="the widths differ", internals=inside)))


def test_the_broken_layer_is_named_first_and_no_layer_behind_it_is_blamed(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("llama", num_hidden_layers=LAYERS)
    broken = changed(folder, tmp_path / "broken", doubled)
    candidate = widened(broken, tmp_path / "wider", width=96)
    told: list[tuple[str, int, int]] = []
    with runs_of(folder, candidate, tmp_path) as runs:
        block = matched_layers(runs, matching(), TEXT, budget=100, seed=0, progress=lambda *one: told.append(one))
    assert told == [("layers through a map", layer, LAYERS) for layer in range(LAYERS)]
    assert block.control == 0
    worst, *others = sites(block, folder)
    expected = mean_kl(whole(folder), whole(broken))
    assert expected > 0.01
    assert (worst.name, worst.kind, worst.layer, worst.shown) == ("matched layer 2", "layer", 2, True)
    assert worst.nats == pytest.approx(expected, rel=2e-3)
    assert worst.share == pytest.approx(1, rel=5e-3)
    assert worst.ci is not None and worst.ci[0] > 0
    assert worst.map_control is not None and worst.map_control.mean is not None
    assert 0 <= worst.map_control.mean < 1e-6
    assert (worst.cause, worst.unclear) == ("unclear", "left_open")
    assert worst.treatment is not None and worst.treatment.recipe is None
    # of the borders behind it the maps have seen the damage, and lose more than that where it begins
    assert [span.maps_of[0] <= 2 for span in block.spans] == [True] * LAYERS
    assert [site.cause for site in others] == ["negligible"] * (LAYERS - 1)
    assert all(site.shown is False and site.nats < 1e-8 for site in others)


@pytest.mark.parametrize(("way", "layer"), [*zip(WAYS, [0, 2, 4, 4, 0], strict=True)])
def test_one_layer_damaged_in_whatever_way_costs_what_it_does_in_one_width_and_no_other_costs_anything(
    tiny: Tiny, tmp_path: Path, way: str, layer: int
) -> None:
    folder = tiny("llama", num_hidden_layers=LAYERS)
    broken = changed(folder, tmp_path / "broken", WAYS[way](layer))
    candidate = widened(broken, tmp_path / "wider", width=96)
    with runs_of(folder, candidate, tmp_path) as runs:
        block = matched_layers(runs, matching(), TEXT, budget=100, seed=0)
    worst, *others = sites(block, folder)
    assert (worst.name, worst.shown) == (f"matched layer {layer}", True)
    assert worst.nats == pytest.approx(mean_kl(whole(folder), whole(broken)), rel=5e-3)
    assert all(site.cause == "negligible" and site.nats < 1e-12 for site in others)
    # the states that the maps were fitted on are the reference's
    assert all(span.before is not None and 0 <= (span.before.mean or 0.0) < 1e-12 for span in block.spans)


def test_of_two_damaged_layers_each_costs_what_it_does_alone(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("llama", num_hidden_layers=LAYERS)
    candidate = widened(changed(folder, tmp_path / "broken", added_times(2, 1, 4)), tmp_path / "wider", width=96)
    with runs_of(folder, candidate, tmp_path) as runs:
        block = matched_layers(runs, matching(), TEXT, budget=100, seed=0)
    found = sites(block, folder)
    assert [site.name for site in found if site.shown] == ["matched layer 1", "matched layer 4"]
    for site in found[:2]:
        alone = changed(folder, tmp_path / site.name, added_times(2, cast("int", site.layer)))
        assert site.nats == pytest.approx(mean_kl(whole(folder), whole(alone)), rel=2e-3)


@pytest.mark.parametrize("bits", [4, 2])
def test_no_layer_is_blamed_for_a_damaged_embedding(tiny: Tiny, tmp_path: Path, bits: int) -> None:
    folder = tiny("llama", num_hidden_layers=LAYERS)
    broken = changed(folder, tmp_path / "broken", rounded("embed_tokens", bits))
    candidate = widened(broken, tmp_path / "wider", width=96)
    with runs_of(folder, candidate, tmp_path) as runs:
        block = matched_layers(runs, matching(), TEXT, budget=100, seed=0)
    first, *others = found = sites(block, folder)
    # the map alone would let the first pass
    assert first.name == "matched layer 0"
    assert first.ci is not None and first.ci[0] > 0
    assert first.map_control is not None and first.map_control.mean is not None
    assert first.map_control.mean < first.nats / 2
    assert first.before is not None and first.before.mean is not None
    assert first.before.mean > first.nats / 2
    assert [(site.shown, site.cause, site.unclear) for site in found] == [
        (False, "unclear", "no_damage_shown")
    ] * LAYERS
    assert {cause_text(site) for site in others} <= {"behind earlier damage", "lost in the map"}
    assert cause_text(first) == "behind earlier damage"
    assert f"; the candidate's embeddings, carried back, cost {numeral(first.before.mean)} by themselves" in first.why
    assert first.treatment is not None
    assert first.treatment.why.endswith("what went wrong before it costs more than a quarter as much")
    told = verdict(found, block)
    assert told.startswith("No part is shown to cost anything alone: the one that costs most, matched layer 0, costs ")
    assert "; but what the candidate's own states cost before it, " in told
    assert OUTSIDE in told


@pytest.mark.parametrize("change", [noisy("embed_tokens"), rounded("embed_tokens", 4)], ids=["noisy", "4 bits"])
def test_no_layer_is_blamed_for_it_where_maps_of_few_tokens_make_it_seem_worse_than_it_is(
    tiny: Tiny, tmp_path: Path, change: Change
) -> None:
    folder = tiny("llama", num_hidden_layers=LAYERS)
    candidate = widened(changed(folder, tmp_path / "broken", change), tmp_path / "wider", width=96)
    with runs_of(folder, candidate, tmp_path, tokens_NL=TOKENS_NL[:, :16]) as runs:
        block = matched_layers(runs, matching(), TEXT, budget=100, seed=0)
    first, *_ = found = sites(block, folder)
    assert first.share is not None and first.share > 1
    assert first.before is not None and first.before.mean is not None
    assert first.nats / 4 < first.before.mean < first.nats
    assert all(site.shown is False for site in found)


def test_damage_of_the_embedding_that_a_map_undoes_shows_as_a_cost_of_layers(tiny: Tiny, tmp_path: Path) -> None:
    """What the controls cannot tell, and why the verdict always says what is not among the parts."""
    folder = tiny("llama", num_hidden_layers=LAYERS)
    broken = changed(folder, tmp_path / "broken", lambda name, one: 1.25 * one if "embed_tokens" in name else one)
    candidate = widened(broken, tmp_path / "wider", width=96)
    with runs_of(folder, candidate, tmp_path) as runs:
        block = matched_layers(runs, matching(), TEXT, budget=100, seed=0)
    first, *_ = found = sites(block, folder)
    assert (first.name, first.shown) == ("matched layer 0", True)
    assert first.before is not None and first.before.mean is not None
    assert first.before.mean < 1e-3 * first.nats
    told = verdict(found, block)
    assert told.startswith("The worst part is matched layer 0, which alone costs ")
    assert OUTSIDE in told


def test_a_damaged_layer_is_blamed_where_the_embedding_is_damaged_less(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("llama", num_hidden_layers=LAYERS)

    def both(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return doubled(name, rounded("embed_tokens", 4)(name, tensor))

    alone = changed(folder, tmp_path / "alone", doubled)
    candidate = widened(changed(folder, tmp_path / "broken", both), tmp_path / "wider", width=96)
    with runs_of(folder, candidate, tmp_path) as runs:
        block = matched_layers(runs, matching(), TEXT, budget=100, seed=0)
    worst, *others = sites(block, folder)
    assert (worst.name, worst.shown) == ("matched layer 2", True)
    assert worst.nats == pytest.approx(mean_kl(whole(folder), whole(alone)), rel=0.1)
    assert all(site.shown is False for site in others)


def test_a_report_from_before_this_control_reads_as_it_did() -> None:
    told = {"mean": 0.5, "ci": (0.4, 0.6), "clusters": "documents"}
    span = {
        "reference": (0, 0),
        "candidate": (0, 0),
        "maps_of": (0, 0),
        "stitched": {"nats": told, "share": 0.5, "control": {"mean": 0.1, "ci": None}, "shown": True},
        "added": (0.3, 0.3),
        "split": False,
    }
    found = MatchedSpan.model_validate(span)
    assert (found.before, found.lost) == (None, False)
    for before, lost in ((0.125, False), (0.126, True), (None, True)):
        found = MatchedSpan.model_validate(span | {"before": {"mean": before, "ci": None}})
        assert (found.lost, found.lost_in_map) == (lost, False)


def test_a_model_that_is_the_reference_in_a_larger_space_costs_no_more_than_its_control(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = tiny("llama", num_hidden_layers=LAYERS)
    candidate = widened(folder, tmp_path / "wider", width=96)
    with runs_of(folder, candidate, tmp_path) as runs:
        block = matched_layers(runs, matching(), TEXT, budget=100, seed=0)
    found = sites(block, folder)
    assert len(found) == LAYERS
    for site in found:
        assert site.map_control is not None and site.map_control.mean is not None
        assert site.nats - site.map_control.mean < 1e-9
        assert (site.cause, site.shown) == ("negligible", False)


def test_a_layer_that_adds_nothing_is_told_to_be_removed(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("llama", num_hidden_layers=LAYERS)
    candidate = widened(changed(folder, tmp_path / "silent", silent), tmp_path / "wider", width=96)
    with runs_of(folder, candidate, tmp_path) as runs:
        block = matched_layers(runs, matching(), TEXT, budget=100, seed=0)
    worst = sites(block, folder)[0]
    assert (worst.name, worst.cause, worst.shown) == ("matched layer 4", "removed", True)
    assert worst.why.startswith("it adds nothing to its states, where the reference's adds ")


def test_within_a_budget_spans_are_narrowed_down_to_it(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("llama", num_hidden_layers=16)
    broken = changed(folder, tmp_path / "broken", doubled)
    candidate = widened(broken, tmp_path / "wider", width=96)
    pairs = tuple((layer, layer) for layer in range(16))
    with runs_of(folder, candidate, tmp_path) as runs:
        infos = runs.reference.runner.skeleton.info, runs.candidate.runner.skeleton.info
        every = sum(mapped_span_passes(infos, layer, 1) for layer in range(16))
        block = matched_layers(runs, matching(pairs), TEXT, budget=0.9 * every, seed=0)
    assert sum(step.cost for step in block.steps) <= 0.9 * every
    assert block.untried == ()
    assert [(span.reference, span.split) for span in block.spans if span.split] != []
    found = sites(block, folder)
    assert (found[0].name, found[0].shown) == ("matched layer 2", True)
    assert any(site.name.startswith("matched layers ") for site in found)
    assert found[0].nats == pytest.approx(mean_kl(whole(folder), whole(broken)), rel=2e-3)
    assert all(site.cause == "negligible" for site in found[1:])


def test_a_span_is_a_row_where_none_of_its_halves_tells_as_much() -> None:
    def span(first: int, last: int, nats: float, control: float, *, split: bool = False) -> dict[str, Any]:
        told = {"mean": nats, "ci": (nats * 0.9, nats * 1.1), "clusters": "documents"}
        stitched = {
            "nats": told,
            "share": nats,
            "share_ci": (nats * 0.9, nats * 1.1),
            "control": {"mean": control, "ci": None},
            "shown": control < nats,
        }
        place = {"reference": (first, last), "candidate": (first + 1, last + 1), "maps_of": (0, 0)}
        return place | {"stitched": stitched, "added": (0.3, 0.3), "split": split}

    def names(*spans: dict[str, Any]) -> list[str]:
        block = MatchedLayers.model_validate(
            {
                "measured": TEXT.model_dump(),
                "total": {"mean": 1.0, "ci": None},
                "spans": spans,
                "steps": (),
                "budget": 4,
                "control": 0.0,
            }
        )
        found = SimpleNamespace(
            internals=Internals(matched_layers=block), patient=lambda: Patient(cast("Any", None), (), cast("Any", None))
        )
        return [site.name for site in matched_sites(cast("Found", found))]

    lost = [span(0, 0, 0.2, 0.3), span(1, 1, 0.1, 0.3)]
    single = ["matched layer 0 (the candidate's 1)", "matched layer 1 (the candidate's 2)"]
    assert names(span(0, 1, 0.5, 0.1, split=True), *lost) == ["matched layers 0, 1 (the candidate's 1, 2)", *single]
    assert names(span(0, 1, 0.5, 0.1, split=True), span(0, 0, 0.4, 0.1), lost[1]) == single
    assert names(span(0, 1, 0.2, 0.3, split=True), *lost) == single


def test_spans_do_not_reach_over_a_gap_of_either_model() -> None:
    assert rows_of([(0, 0), (1, 1), (3, 2), (4, 4), (5, 5)]) == [range(2), range(2, 3), range(3, 5)]
    span = MatchedSpan.model_construct(reference=(4, 6), candidate=(4, 6))
    assert span_name(span) == "matched layers 4–6"


def test_cancelling_is_seen_between_layers_and_what_was_measured_is_kept(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("llama")
    candidate = widened(folder, tmp_path / "wider", width=96)
    kept: dict[str, MatchedSpan] = {}
    stop = False

    def check() -> None:
        if stop:
            raise LostError

    def keep(name: str, make: Callable[[], MatchedSpan]) -> MatchedSpan:
        nonlocal stop
        if name not in kept:
            kept[name] = make()
            stop = len(kept) == 1
        return kept[name]

    pairs = ((0, 0), (1, 1), (2, 2))
    with runs_of(folder, candidate, tmp_path, check) as runs:
        with pytest.raises(LostError):
            matched_layers(runs, matching(pairs), TEXT, budget=100, seed=0, kept=keep)
        assert list(kept) == ["matched-0-0"]
        first = kept["matched-0-0"]
        stop = False
        block = matched_layers(runs, matching(pairs), TEXT, budget=100, seed=0, kept=keep)
    assert block.spans[0] == first
    assert len(block.spans) == 3


def test_of_one_window_nothing_is_run_and_it_is_said(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("llama")
    candidate = widened(folder, tmp_path / "wider", width=96)
    with runs_of(folder, candidate, tmp_path, tokens_NL=TOKENS_NL[:1]) as runs:
        block = matched_layers(runs, matching(((0, 0), (1, 1), (2, 2))), TEXT, budget=100, seed=0)
    assert block.spans == ()
    assert block.maps is None
    assert block.not_stitched.startswith("the text is a single window")
