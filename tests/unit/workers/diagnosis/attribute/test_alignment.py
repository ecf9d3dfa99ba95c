"""Which layer is which must be found exactly where it is known, and a gap's damage be that of the model with it."""

import pytest
from torch import nn

from tests.support.internals import DOCUMENT_N, TOKENS_NL, at_borders, kl, run, whole
from tests.support.pruning import operate
from workers.diagnosis.attribute.alignment import align
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


def pairs(found):
    return [(pair.reference, pair.candidate) for pair in found.pairs]


def mean_kl(reference, other):
    return float(kl(run(reference).logits, run(other).logits).mean())


@pytest.mark.parametrize("gone", [[0], [3], [5], [1, 2], [1, 4]])
def test_dropped_layers_are_found_exactly(aligned, gone):
    found, reference, candidate = aligned({"type": "prune.layers", "layers": gone})
    kept = [layer for layer in range(LAYERS) if layer not in gone]
    assert pairs(found) == [(layer, place) for place, layer in enumerate(kept)]
    assert [layer for gap in found.gaps for layer in gap.dropped] == gone
    assert {gap.inserted for gap in found.gaps} == {()}
    assert found.total.mean == pytest.approx(mean_kl(reference, candidate), rel=1e-4)
    assert found.control == found.matched.mean == 0
    if len(found.gaps) == 1:  # the whole damage is this gap's, either way
        (gap,) = found.gaps
        assert gap.stability > 0.9
        assert gap.nats == found.total
        assert gap.saved.mean == found.total.mean
        assert gap.share == 1


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@pytest.mark.parametrize("twice", [[0], [5], [1, 2]])
def test_duplicated_layers_are_found_exactly(aligned, kind, twice):
    found, reference, candidate = aligned({"type": "extend.duplicate", "layers": twice}, kind=kind)
    last, shift = twice[-1], len(twice)
    assert pairs(found) == [(layer, layer if layer <= last else layer + shift) for layer in range(LAYERS)]
    (gap,) = found.gaps
    assert gap.inserted == tuple(range(last + 1, last + 1 + shift))
    assert gap.nats.mean == pytest.approx(mean_kl(reference, candidate), rel=1e-3)


def test_an_inserted_identity_has_no_damage_at_all(aligned):
    found, _, _ = aligned({"type": "extend.identity", "layers": [0, 3]})
    assert [gap.inserted for gap in found.gaps] == [(1,), (5,)]
    assert {gap.nats.mean for gap in found.gaps} == {gap.saved.mean for gap in found.gaps} == {0.0}
    assert found.total.mean == 0


def test_each_gap_is_the_reference_with_it_alone(aligned):
    found, reference, candidate = aligned(
        {"type": "quantize.rtn", "bits": 4}, {"type": "prune.layers", "layers": [1, 4]}
    )
    assert [gap.dropped for gap in found.gaps] == [(1,), (4,)]
    layers = list(reference.model.layers)
    clean = run(reference).logits
    for gap, dropped in zip(found.gaps, (1, 4), strict=True):
        reference.model.layers = nn.ModuleList([layer for index, layer in enumerate(layers) if index != dropped])
        assert gap.nats.mean == pytest.approx(float(kl(clean, run(reference).logits).mean()), rel=1e-3)
        assert gap.share == pytest.approx(gap.nats.mean / found.total.mean)
        assert gap.share_ci[0] < gap.share < gap.share_ci[1]
    # without the first gap the candidate has one layer more, the reference's
    reference.model.layers = nn.ModuleList(layers)
    parts = list(candidate.model.layers)
    candidate.model.layers = nn.ModuleList([parts[0], layers[1], *parts[1:]])
    candidate.config.num_hidden_layers = 5
    saved = kl(clean, run(candidate).logits).mean()
    assert found.gaps[0].saved.mean == pytest.approx(found.total.mean - float(saved), rel=1e-3)
    # all matched layers the candidate's, and no gap
    candidate.model.layers = nn.ModuleList([parts[0], layers[1], parts[1], parts[2], layers[4], parts[3]])
    candidate.config.num_hidden_layers = LAYERS
    matched = float(kl(clean, run(candidate).logits).mean())
    assert found.matched.mean == pytest.approx(matched, rel=1e-3)


def test_widened_heads_and_channels_leave_every_layer_its_partner(aligned):
    found, _, _ = aligned({"type": "extend.width", "heads": 2, "channels": 2})
    assert pairs(found) == [(layer, layer) for layer in range(LAYERS)]
    assert found.gaps == ()
    assert found.total.mean < 1e-9
    assert {pair.stability for pair in found.pairs} == {1.0}


def test_too_few_documents_and_windows_are_not_resampled(tiny, tmp_path):
    """One document drawn anew is itself, whatever it is: that said that every gap is stable."""
    with at_borders(tiny("llama"), tiny("llama"), scratch=tmp_path, tokens_NL=TOKENS_NL[:5]) as (reference, candidate):
        found = align(reference, candidate, [0, 1, 2, 3, 4])
    assert {pair.stability for pair in found.pairs} == {None}


def test_cancelling_is_seen(tiny, tmp_path):
    class LostError(Exception):
        pass

    def stop():
        raise LostError

    with at_borders(tiny("llama"), scratch=tmp_path) as (borders,), pytest.raises(LostError):
        align(borders, borders, DOCUMENT_N, check_cancelled=stop)
