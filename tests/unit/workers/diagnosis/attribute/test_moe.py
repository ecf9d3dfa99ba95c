"""Routing against transformers' own router logits, and against changes whose effect is known."""

import numpy as np
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from tests.support.internals import DOCUMENT_N, TOKENS_NL, kl, run, whole
from tests.support.pruning import operate
from workers.diagnosis.attribute.moe import routing_shift
from workers.surgery.store import CheckpointStore

# The middle layer of Qwen's two is dense.
_QWEN = {
    "kind": "llama-untied",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "mlp_only_layers": [1],
}
MIXTURES = {
    "mixtral": ({"kind": "mixtral"}, (0, 1, 2)),
    "qwen2_moe": (_QWEN | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 64}, (0, 2)),
    "qwen3_moe": (_QWEN | {"model_type": "qwen3_moe"}, (0, 2)),
}


@pytest.fixture
def shifted(tiny, tmp_path):
    """(shift, router logits [layer] of (N·L, E) of both by transformers) of a recipe."""
    store = CheckpointStore(tmp_path / "store", 10**9)

    def made(*steps, kind="mixtral", **options):
        folder = tiny(kind, **options)
        with operate(folder, store, *steps) as modified:
            found = routing_shift(inspect(folder), inspect(modified.path), TOKENS_NL, DOCUMENT_N, tmp_path)
            logits = [run(whole(one), output_router_logits=True).router_logits for one in (folder, modified.path)]
        return found, logits

    return made


@pytest.mark.parametrize(("options", "layers"), MIXTURES.values(), ids=MIXTURES)
def test_against_transformers_own_router_logits(shifted, options, layers):
    found, (ours, theirs) = shifted({"type": "quantize.rtn", "bits": 3, "group_size": 32}, **options)
    assert (found.layers, found.experts, found.chosen) == (layers, 4, (2, 2))
    assert len(ours) == len(theirs) == len(layers)
    for index, (first, second) in enumerate(zip(ours, theirs, strict=True)):
        lost = []
        same = []
        other = []
        loads = np.zeros((2, 4))
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            order = np.argsort(-np.array(a), kind="stable").tolist()
            chosen, again = set(order[:2]), set(np.argsort(-np.array(b), kind="stable")[:2].tolist())
            lost.append(len(chosen ^ again) / len(chosen | again))
            (same if chosen == again else other).append(a[order[1]] - a[order[2]])
            for row, picked in enumerate((chosen, again)):
                loads[row, list(picked)] += 1
        loads /= loads.sum(1, keepdims=True)
        assert found.changed.values()[index] == pytest.approx(np.mean(lost))
        assert found.any_changed.values()[index] == pytest.approx(len(other) / len(lost))
        assert found.margin_same.values()[index] == pytest.approx(np.mean(same), rel=1e-3)
        if other:
            assert found.margin_changed.values()[index] == pytest.approx(np.mean(other), rel=1e-3)
        assert found.divergence.values()[index] == pytest.approx(float(kl(first, second).mean()), rel=1e-3)
        np.testing.assert_allclose(found.load_reference.values()[index], loads[0])
        np.testing.assert_allclose(found.load_candidate.values()[index], loads[1])
        assert found.load_shift()[index] == pytest.approx(np.abs(loads[0] - loads[1]).sum() / 2)
    assert found.changed.values().max() > 0.02  # there is something to be right about


def test_a_temperature_changes_no_choice_of_the_first_router(shifted):
    found, _ = shifted({"type": "moe.router", "temperature": 2.0})
    assert not found.own.top.any()
    assert found.changed.values()[0] == 0
    assert found.divergence.values()[0] > 0


@pytest.mark.parametrize("options", [options for options, _ in MIXTURES.values()], ids=MIXTURES)
def test_what_a_router_changes_by_itself_is_told_apart(shifted, options):
    found, _ = shifted({"type": "moe.router", "noise": 0.5, "seed": 1, "layers": [0]}, **options)
    assert found.own.values()[0] == found.changed.values()[0] > 0  # the first one's inputs are the reference's
    assert not found.own.top[:, 1:].any()  # the others' weights are as they were
    assert found.changed.values()[1:].max() > 0  # and yet what reaches them is not


@pytest.mark.parametrize(("experts", "own"), [(1, 0.5), (4, 0.5)])
def test_fewer_or_more_experts_a_token_are_a_change_of_every_token(shifted, experts, own):
    """The first router sees the same states: its two choices stay, but for those that go and come."""
    found, _ = shifted({"type": "moe.topk", "experts": experts})
    assert found.chosen == (2, experts)
    assert found.changed.values()[0] == found.own.values()[0] == pytest.approx(own)
    assert found.any_changed.values()[0] == 1


def test_a_dense_model_has_no_experts_and_other_experts_are_not_compared(tiny, tmp_path):
    mixture = inspect(tiny("mixtral"))
    for other, text in ((tiny("llama"), "has no experts"), (tiny("mixtral", num_local_experts=3), "4 experts")):
        with pytest.raises(HemostatError, match=text) as caught:
            routing_shift(mixture, inspect(other), TOKENS_NL, DOCUMENT_N, tmp_path)
        assert caught.value.code == ErrorCode.RECIPE_NOT_APPLICABLE
