"""The one call of the job: every block, kept from attempt to attempt, and what cannot be measured told."""

import json
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from app.kinds.attribute.plan import attribution_cost
from app.kinds.attribute.request import AttributeRequest
from app.models.checkpoint import inspect
from tests.support.internals import DOCUMENT_N, TOKENS_NL, kl, run, whole
from tests.support.pruning import operate
from workers.diagnosis.attribute.internals import Model, internals
from workers.surgery.reading import open_tensors
from workers.surgery.store import CheckpointStore


class LostError(Exception):
    """The attempt is lost."""


@contextmanager
def models(*folders):
    with ExitStack() as stack:
        yield [Model(inspect(one), stack.enter_context(open_tensors(inspect(one))).read) for one in folders]


def measure(folders, scratch, **options):
    with models(*folders) as (reference, candidate):
        return internals(reference, candidate, TOKENS_NL, DOCUMENT_N, scratch, repair_tokens=100, **options)


@pytest.fixture
def deeper(tiny, tmp_path):
    store = CheckpointStore(tmp_path / "store", 10**9)
    steps = [{"type": "quantize.rtn", "bits": 4, "group_size": 32}, {"type": "extend.duplicate", "layers": [1]}]
    with operate(tiny("llama"), store, *steps) as modified:
        yield [tiny("llama"), modified.path]


def test_the_alignment_alone_is_that_of_all_blocks_and_what_is_left_out_is_told(deeper, tmp_path):
    found = measure(deeper, tmp_path / "alone", alignment_alone=True)
    assert found.alignment == measure(deeper, tmp_path / "all").alignment
    assert found.attention is None
    assert found.activations is None
    assert found.not_measured == ("attention, growth of errors and routing: not asked for (`internals` is false)",)


def test_every_block_of_a_deeper_model(deeper, tmp_path):
    phases = []
    found = measure(deeper, tmp_path, progress=lambda *one: phases.append(one))
    alignment, attention, growth = found.alignment, found.attention, found.activations
    assert found.routing is None
    assert found.not_measured == ()
    assert [(pair.reference, pair.candidate) for pair in alignment.pairs] == [(0, 0), (1, 1), (2, 3)]
    assert [(one.kind, one.layer, one.of) for gap in alignment.gaps for one in gap.layers] == [("duplicate", 2, 1)]
    clean, changed = (run(whole(folder)).logits for folder in deeper)
    per_token = kl(clean, changed)
    assert alignment.total.mean == pytest.approx(float(per_token.mean()), rel=1e-3)
    assert alignment.total.ci is not None
    assert alignment.total.clusters == "documents"
    assert alignment.control == 0
    (gap,) = alignment.gaps
    parts = gap.nats.mean + (alignment.matched.mean or 0)
    assert alignment.additivity == pytest.approx((alignment.total.mean or 0) / parts)
    assert gap.share == pytest.approx(gap.nats.mean / (alignment.total.mean or 1))
    assert gap.share_ci[0] < (gap.share or 0) < gap.share_ci[1]
    assert alignment.additivity_ci[0] < (alignment.additivity or 0) < alignment.additivity_ci[1]
    assert [layer.candidate for layer in attention.layers] == [0, 1, 3]
    assert all(len(layer.heads) == 2 for layer in attention.layers)
    for layer in attention.layers:
        assert layer.js.mean == pytest.approx(np.mean([head.js.mean for head in layer.heads]))
    assert [step.gap for step in growth.steps] == [False, False, True, False]
    last = growth.borders[-1]
    assert last.sqnr.ci[0] < (last.sqnr.mean or 0) < last.sqnr.ci[1]
    assert growth.steps[0].repaired is not None
    assert growth.repair_measured.tokens == 96
    done = {phase: (count, total) for phase, count, total in phases}
    assert all(count == total for count, total in done.values()), done
    assert json.loads(found.model_dump_json())["alignment"]["pairs"]


@pytest.mark.parametrize("inside", [True, False])
def test_states_on_disk_are_as_many_bytes_as_the_estimate_counts(deeper, tmp_path, inside):
    sizes = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def look(*_):
        sizes.append(sum(file.stat().st_blocks * 512 for file in scratch.rglob("*.bin")))

    with models(*deeper) as (reference, candidate):
        internals(reference, candidate, TOKENS_NL, DOCUMENT_N, scratch, progress=look, alignment_alone=not inside)
    infos = reference.info, candidate.info
    windows, length = TOKENS_NL.shape
    body = {
        "kind": "attribute",
        "reference": {"model": "a"},
        "self_check": True,
        "candidate": {"model": "a"},
        "window": length,
    }
    cost = attribution_cost(
        AttributeRequest.model_validate(body | {"internals": inside}), infos, windows * length, reference_parameters=1.0
    )
    # of models of two depths nothing else is kept: no part of them is swapped
    assert cost.bytes == max(sizes)


def test_a_lost_attempt_measures_no_block_twice(deeper, tmp_path):
    def stop(phase, *_):
        if phase == "activations":
            raise LostError

    scratch, other = tmp_path / "one", tmp_path / "other"
    for folder in (scratch, other):
        folder.mkdir()
    expected = measure(deeper, other)
    with pytest.raises(LostError):
        measure(deeper, scratch, progress=stop)
    phases = []
    found = measure(deeper, scratch, progress=lambda phase, *_: phases.append(phase))
    assert found == expected
    assert not {"similarity", "gaps", "attention"} & set(phases)


def test_mixtures_get_every_block_and_their_routing(tiny, tmp_path):
    store = CheckpointStore(tmp_path / "store", 10**9)
    with operate(tiny("mixtral"), store, {"type": "quantize.rtn", "bits": 3, "group_size": 32}) as modified:
        found = measure([tiny("mixtral"), modified.path], tmp_path)
        clean, changed = (run(whole(folder)).logits for folder in (tiny("mixtral"), modified.path))
    assert [(pair.reference, pair.candidate) for pair in found.alignment.pairs] == [(0, 0), (1, 1), (2, 2)]
    # layer by layer as whole
    assert found.alignment.total.mean == pytest.approx(float(kl(clean, changed).mean()), rel=1e-3)
    assert [layer.candidate for layer in found.attention.layers] == [0, 1, 2]
    assert len(found.activations.steps) == 3
    routing = found.routing
    assert [layer.layer for layer in routing.layers] == [0, 1, 2]
    for layer in routing.layers:
        assert sum(layer.load_reference) == pytest.approx(1)
        shift = sum(abs(a - b) for a, b in zip(layer.load_reference, layer.load_candidate, strict=True)) / 2
        assert layer.load_shift.mean == pytest.approx(shift)
        assert layer.load_shift.ci[0] <= shift <= layer.load_shift.ci[1]
    assert found.not_measured == ()


def test_mixtures_of_other_depths_are_told_by_their_gaps(tiny, tmp_path):
    store = CheckpointStore(tmp_path / "store", 10**9)
    with operate(tiny("mixtral"), store, {"type": "prune.layers", "layers": [1]}) as modified:
        found = measure([tiny("mixtral"), modified.path], tmp_path)
    assert [(one.kind, one.layer) for gap in found.alignment.gaps for one in gap.layers] == [("dropped", 1)]
    assert found.alignment.control == 0
    assert None not in (found.attention, found.activations)
    assert found.routing is None
    (why,) = found.not_measured
    assert why.endswith("and the models have 3 and 2")


def test_routers_of_layers_that_are_numbered_anew_are_not_compared(tiny, tmp_path):
    found = measure([tiny("mixtral"), tiny("mixtral")], tmp_path, renumbered="layer 1 is a copy of layer 2")
    assert found.alignment is not None
    assert found.routing is None
    assert found.not_measured[0].endswith("and layer 1 is a copy of layer 2")


def test_a_dense_model_against_a_mixture_is_told(tiny, tmp_path):
    found = measure([tiny("llama"), tiny("mixtral")], tmp_path)
    assert found.alignment is None
    assert found.routing is None
    assert len(found.not_measured) == 1
    assert "MixtralForCausalLM" in found.not_measured[0]
