"""Which layer is which must be found exactly where it is known, and a gap's damage be that of the model with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from app.kinds.attribute.blocks import Measured
from tests.support.internals import DOCUMENT_N, TOKENS_NL, at_borders, kl, run, whole
from tests.support.pruning import operate
from workers.diagnosis.attribute.alignment import Runs, align
from workers.diagnosis.attribute.blocks import alignment_block, by_kind
from workers.diagnosis.attribute.matching import Gap
from workers.diagnosis.attribute.sums import Clusters
from workers.surgery.store import CheckpointStore

LAYERS = 6


@pytest.fixture
def aligned(tiny, tmp_path):
    """(alignment, transformers' reference, transformers' candidate) of a recipe on a model of six layers."""
    store = CheckpointStore(tmp_path / "store", 10**9)

    def made(*steps, kind="llama"):
        folder = tiny(kind, num_hidden_layers=LAYERS)
        with (
            operate(folder, store, *steps) as modified,
            at_borders(folder, modified.path, scratch=tmp_path) as (reference, candidate),
        ):
            return align(reference, candidate, DOCUMENT_N), whole(folder), whole(modified.path)

    return made


def mean_kl(reference, other):
    return float(kl(run(reference).logits, run(other).logits).mean())


@pytest.mark.parametrize("gone", [[0], [1], [2], [3], [4], [5], [1, 2], [1, 4]])
def test_dropped_layers_are_found_exactly(aligned, gone):
    found, reference, candidate = aligned({"type": "prune.layers", "layers": gone})
    kept = [layer for layer in range(LAYERS) if layer not in gone]
    assert found.matching.pairs == tuple((layer, place) for place, layer in enumerate(kept))
    assert [one.layer for gap in found.gaps for one in gap.origins] == gone
    assert {one.kind for gap in found.gaps for one in gap.origins} == {"dropped"}
    assert float(found.total.values()) == pytest.approx(mean_kl(reference, candidate), rel=1e-4)
    assert float(found.control.values()) == float(found.matched.values()) == 0
    if len(found.gaps) == 1:  # the whole damage is this gap's, either way
        (gap,) = found.gaps
        assert gap.stability > 0.9
        np.testing.assert_array_equal(gap.swapped.top, found.total.top)
        np.testing.assert_array_equal(gap.saved.top, found.total.top)
        block = alignment_block(replace(found, resamplings=0), Measured(windows=1, tokens=1, documents=1), seed=0)
        assert {one.stability for one in (*block.pairs, *block.gaps)} == {None}


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@pytest.mark.parametrize("twice", [[0], [2], [5], [1, 2]])
def test_duplicated_layers_are_found_exactly(aligned, kind, twice):
    found, reference, candidate = aligned({"type": "extend.duplicate", "layers": twice}, kind=kind)
    last = twice[-1]
    shift = len(twice)
    assert found.matching.pairs == tuple((layer, layer if layer <= last else layer + shift) for layer in range(LAYERS))
    (gap,) = found.gaps
    assert gap.gap.candidate == tuple(range(last + 1, last + 1 + shift))
    assert [(one.kind, one.of, one.distance) for one in gap.origins] == [("duplicate", layer, 0.0) for layer in twice]
    assert float(gap.swapped.values()) == pytest.approx(mean_kl(reference, candidate), rel=1e-3)


def test_an_inserted_identity_has_no_damage_at_all(aligned):
    found, _, _ = aligned({"type": "extend.identity", "layers": [0, 3]})
    assert [gap.gap.candidate for gap in found.gaps] == [(1,), (5,)]
    for gap in found.gaps:
        assert [one.kind for one in gap.origins] == ["identity"]
        assert gap.origins[0].added == 0
        assert not gap.swapped.top.any()
        assert not gap.saved.top.any()
        assert gap.before == pytest.approx(1)
        assert gap.after == pytest.approx(1)
    assert not found.total.top.any()


def test_an_interpolated_layer_is_no_copy(aligned):
    found, _, _ = aligned({"type": "extend.interpolate", "layers": [2]})
    assert [gap.gap.candidate for gap in found.gaps] == [(3,)]
    assert [(one.kind, one.of) for one in found.gaps[0].origins] == [("inserted", None)]
    assert found.gaps[0].origins[0].distance == pytest.approx(0.5**0.5, rel=0.05)  # halfway between two strangers


def test_each_gap_is_the_reference_with_it_alone(aligned):
    found, reference, candidate = aligned(
        {"type": "quantize.rtn", "bits": 4}, {"type": "prune.layers", "layers": [1, 4]}
    )
    assert [gap.gap.reference for gap in found.gaps] == [(1,), (4,)]
    layers = list(reference.model.layers)
    clean = run(reference).logits
    for gap, dropped in zip(found.gaps, (1, 4), strict=True):
        reference.model.layers = nn.ModuleList([layer for index, layer in enumerate(layers) if index != dropped])
        assert float(gap.swapped.values()) == pytest.approx(float(kl(clean, run(reference).logits).mean()), rel=1e-3)
    # without the first gap the candidate has one layer more, the reference's
    reference.model.layers = nn.ModuleList(layers)
    parts = list(candidate.model.layers)
    candidate.model.layers = nn.ModuleList([parts[0], layers[1], *parts[1:]])
    candidate.config.num_hidden_layers = 5
    saved = kl(clean, run(candidate).logits).mean()
    expected = float(found.total.values()) - float(saved)
    assert float(found.gaps[0].saved.values()) == pytest.approx(expected, rel=1e-3)
    # all matched layers the candidate's, and no gap
    candidate.model.layers = nn.ModuleList([parts[0], layers[1], parts[1], parts[2], layers[4], parts[3]])
    candidate.config.num_hidden_layers = LAYERS
    matched = float(kl(clean, run(candidate).logits).mean())
    assert float(found.matched.values()) == pytest.approx(matched, rel=1e-3)


def test_widened_heads_and_channels_leave_every_layer_its_partner(aligned):
    found, _, _ = aligned({"type": "extend.width", "heads": 2, "channels": 2})
    assert found.matching.pairs == tuple((layer, layer) for layer in range(LAYERS))
    assert found.gaps == ()
    assert float(found.total.values()) < 1e-9
    assert min(found.stability_P) == 1


def test_too_few_documents_and_windows_are_not_resampled(tiny, tmp_path):
    """One document drawn anew is itself, whatever it is: that said that every gap is stable."""
    folders = tiny("llama"), tiny("llama")
    with at_borders(*folders, scratch=tmp_path) as (reference, candidate):
        windows = len(reference.runner.tokens_NL)
        found = align(reference, candidate, DOCUMENT_N)
        assert found.resamplings == 200
        assert windows >= 6
        # windows stand for one document
        assert align(reference, candidate, [0] * windows).resamplings == 200
    with at_borders(*folders, scratch=tmp_path / "few", tokens_NL=TOKENS_NL[:5]) as (reference, candidate):
        found = align(reference, candidate, [0, 1, 2, 3, 4])
    assert found.resamplings == 0
    block = alignment_block(found, Measured(windows=5, tokens=5, documents=5), seed=0)
    assert {one.stability for one in (*block.pairs, *block.gaps)} == {None}


def test_cancelling_is_seen(tiny, tmp_path):
    class LostError(Exception):
        pass

    def stop():
        raise LostError

    with at_borders(tiny("llama"), scratch=tmp_path) as (borders,), pytest.raises(LostError):
        align(borders, borders, DOCUMENT_N, check_cancelled=stop)


GAP = Gap((1,), (), 2, 1)


def test_what_a_gap_costs_and_saves_is_summed_by_kind_of_token_too(tiny, tmp_path):
    folder = tiny("llama", num_hidden_layers=4)
    odd_NL = TOKENS_NL % 2 == 1
    few_NL = (TOKENS_NL % 7 == 0) & ~odd_NL
    kinds = {"odd": odd_NL, "few": few_NL, "none": ~odd_NL & ~few_NL}
    with operate(folder, CheckpointStore(tmp_path / "store", 10**9), {"type": "prune.layers", "layers": [1]}) as made:
        exact_NL = kl(run(whole(folder)).logits, run(whole(made.path)).logits)
        with at_borders(folder, made.path, scratch=tmp_path) as both:
            runs = Runs(*both, Clusters.of(DOCUMENT_N), lambda: None, kinds)
            swapped, saved = runs.swapped(GAP), runs.saved(GAP)
    for name, mask_NL in kinds.items():
        expected = float(exact_NL[mask_NL].mean())
        for sums in (swapped, saved):  # the gap is all that is between the two models
            assert float(sums.by_kind[name].values()) == pytest.approx(expected, rel=1e-3)
            assert sums.by_kind[name].bottom.sum() == mask_NL.sum()
    assert sum(one.top for one in swapped.by_kind.values()) == pytest.approx(swapped.top, rel=1e-9)
    told = by_kind(swapped, saved, seed=0)
    assert [(one.name, one.tokens) for one in told] == [(name, int(of.sum())) for name, of in kinds.items()]
    shares = torch.tensor([float(exact_NL[of].sum() / exact_NL.sum()) for of in kinds.values()])
    assert [one.share for one in told] == pytest.approx(shares.tolist(), rel=1e-3)
    for one in told:
        assert one.nats.ci is not None and one.share_ci is not None
        assert one.restored.mean == pytest.approx(one.nats.mean, rel=1e-3)
