"""The one call of the job: every block, kept from attempt to attempt, and what cannot be measured told."""

from contextlib import ExitStack, contextmanager

import pytest

from app.kinds.attribute.plan import attribution_cost
from app.kinds.attribute.request import AttributeRequest
from app.models.checkpoint import inspect
from app.models.pace import Pace
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
        yield [
            Model(inspect(one), stack.enter_context(open_tensors(inspect(one), "cpu")).read, "cpu") for one in folders
        ]


def measure(folders, scratch, **options):
    with models(*folders) as (reference, candidate):
        return internals((reference, candidate), TOKENS_NL, DOCUMENT_N, scratch, **options)


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
    assert found.not_measured == ("attention and growth of errors: not asked for (`internals` is false)",)


def test_every_block_of_a_deeper_model(deeper, tmp_path):
    phases = []
    found = measure(deeper, tmp_path, progress=lambda *one: phases.append(one))
    assert found.not_measured == ()
    assert [(pair.reference, pair.candidate) for pair in found.alignment.pairs] == [(0, 0), (1, 1), (2, 3)]
    assert [layer.candidate for layer in found.attention.layers] == [0, 1, 3]
    assert [step.gap for step in found.activations.steps] == [False, False, True, False]
    assert found.alignment.total.clusters == "documents"
    assert found.alignment.measured == found.attention.measured == found.activations.measured
    assert found.alignment.measured.tokens == TOKENS_NL.numel()
    done = {phase: (count, total) for phase, count, total in phases}
    assert all(count == total for count, total in done.values()), done


@pytest.mark.parametrize("inside", [True, False])
def test_states_on_disk_are_as_many_bytes_as_the_estimate_counts(deeper, tmp_path, inside):
    sizes = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def look(*_):
        sizes.append(sum(file.stat().st_blocks * 512 for file in scratch.rglob("*.bin")))

    with models(*deeper) as (reference, candidate):
        internals((reference, candidate), TOKENS_NL, DOCUMENT_N, scratch, progress=look, alignment_alone=not inside)
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
        AttributeRequest.model_validate(body | {"internals": inside}), infos, windows * length, Pace(1400.0, "")
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


def test_mixtures_get_every_block(tiny, tmp_path):
    store = CheckpointStore(tmp_path / "store", 10**9)
    steps = [{"type": "quantize.rtn", "bits": 3, "group_size": 32}]
    with operate(tiny("mixtral"), store, *steps) as modified:
        found = measure([tiny("mixtral"), modified.path], tmp_path)
        clean, changed = (run(whole(folder)).logits for folder in (tiny("mixtral"), modified.path))
    # layer by layer as whole
    assert found.alignment.total.mean == pytest.approx(float(kl(clean, changed).mean()), rel=1e-3)
    assert [layer.candidate for layer in found.attention.layers] == [0, 1, 2]
    assert len(found.activations.steps) == 3
    assert found.not_measured == ()


def test_a_dense_model_against_a_mixture_is_not_measured(tiny, tmp_path):
    found = measure([tiny("llama"), tiny("mixtral")], tmp_path)
    assert found.alignment is None
    assert len(found.not_measured) == 1
    assert "MixtralForCausalLM" in found.not_measured[0]
