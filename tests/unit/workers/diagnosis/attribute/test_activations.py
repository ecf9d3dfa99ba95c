"""Errors against transformers' hidden states, their parts against layers run by hand."""

import numpy as np
import pytest

from tests.support.internals import DOCUMENT_N, at_borders, run, whole
from tests.support.pruning import operate
from workers.diagnosis.attribute.activations import activation_growth
from workers.diagnosis.attribute.matching import Matching, match
from workers.surgery.store import CheckpointStore

SAME = Matching(((0, 0), (1, 1), (2, 2)), ())
RTN = {"type": "quantize.rtn", "bits": 3, "group_size": 32}


def states(folder):
    """(N, L, D) at every border, without the first token, in float64."""
    model = whole(folder)
    kept = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    model.model.norm.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    run(model)
    return [one[:, 1:].double() for one in kept]


@pytest.fixture
def quantized(tiny, tmp_path):
    store = CheckpointStore(tmp_path / "store", 10**9)
    with (
        operate(tiny("llama"), store, RTN) as modified,
        at_borders(tiny("llama"), modified.path, scratch=tmp_path) as (reference, candidate),
    ):
        yield tiny("llama"), modified.path, reference, candidate


def test_errors_at_borders_are_those_of_transformers_states(quantized):
    folder, other, reference, candidate = quantized
    found = activation_growth(reference, candidate, SAME, DOCUMENT_N)
    assert [(one.reference, one.candidate) for one in found.borders] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    for border, h, hat in zip(found.borders, states(folder), states(other), strict=True):
        expected = float(((hat - h).norm(dim=-1) / h.norm(dim=-1)).mean())
        assert border.relative.mean == pytest.approx(expected, rel=1e-3, abs=1e-9)
    low, high = found.borders[-1].relative.ci
    assert low < found.borders[-1].relative.mean < high


def test_the_error_that_leaves_a_layer_is_fresh_and_carried(quantized):
    folder, other, reference, candidate = quantized
    found = activation_growth(reference, candidate, SAME, DOCUMENT_N)
    ours, theirs = states(folder), states(other)
    fresh_total = 0.0
    for layer, step in enumerate(found.steps):
        model = whole(folder)  # the reference with this one layer the candidate's: its states behind it
        model.model.layers[layer] = whole(other).model.layers[layer]
        kept = []
        follower = model.model.norm if layer == 2 else model.model.layers[layer + 1]
        follower.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0]))
        run(model)
        fed = kept[0][:, 1:].double()
        fresh = float((fed - ours[layer + 1]).square().sum())
        fresh_total += fresh
        expected = (fresh / float(ours[layer + 1].square().sum())) ** 0.5
        assert step.fresh.mean == pytest.approx(expected, rel=1e-3)
        if layer:
            carried = float((theirs[layer + 1] - fed).norm() / (theirs[layer] - ours[layer]).norm())
            assert step.amplification.mean == pytest.approx(carried, rel=1e-3)
        else:
            assert step.amplification.mean is None  # no error enters: bits of the embedding are kept
    fresh_total += float((theirs[0] - ours[0]).square().sum())
    last = float((theirs[3] - ours[3]).square().sum())
    assert found.cascade.mean == pytest.approx((last / fresh_total) ** 0.5, rel=1e-3)


def test_a_model_has_no_error_against_itself(tiny, tmp_path):
    with at_borders(tiny("llama"), scratch=tmp_path) as (borders,):
        found = activation_growth(borders, borders, SAME, DOCUMENT_N)
    assert {one.relative.mean for one in found.borders} == {one.fresh.mean for one in found.steps} == {0.0}
    assert found.cascade.mean is None


def test_a_gap_is_a_step_with_its_own_fresh_error(tiny, tmp_path):
    store = CheckpointStore(tmp_path / "store", 10**9)
    folder = tiny("llama")
    with (
        operate(folder, store, {"type": "prune.layers", "layers": [1]}) as modified,
        at_borders(folder, modified.path, scratch=tmp_path) as (reference, candidate),
    ):
        found = activation_growth(reference, candidate, match(np.array([[1.0, 0], [0, 0], [0, 1]])), DOCUMENT_N)
    assert [step.gap for step in found.steps] == [False, True, False]
    assert [(one.reference, one.candidate) for one in found.borders] == [(0, 0), (1, 1), (2, 1), (3, 2)]
    h = states(folder)
    skipped = float((h[1] - h[2]).norm() / h[2].norm())  # nothing was done where the reference has a layer
    assert [step.fresh.mean for step in found.steps] == pytest.approx([0, skipped, 0], rel=1e-3, abs=1e-9)
    # one fresh error, then one layer that handles it
    assert found.cascade.mean == pytest.approx(found.steps[2].amplification.mean, rel=1e-3)
