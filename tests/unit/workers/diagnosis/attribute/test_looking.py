"""What is asked about the first parts, against whole models with the same weights."""

from itertools import combinations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from app.contracts.report import Mean
from app.kinds.attribute.request import AttributeRequest
from app.settings import Settings
from tests.support.attempts import Context
from tests.unit.workers.diagnosis.attribute.swapped import (
    HEADS,
    changed_copy,
    differing_of,
    first,
    noisy,
    reads_of,
    subset,
    swapper,
    whole_model_kl,
)
from workers.diagnosis.attribute.controls import batches_of
from workers.diagnosis.attribute.looking import Looking, disjoint, is_far, is_near, pairs
from workers.diagnosis.attribute.search import Measured, Search
from workers.diagnosis.attribute.sites import Piece, Site

# Three batches, of which pairs are run on the first.
TEXT = subset(windows=180)
UP, DOWN = "layers.0.mlp.up_proj", "layers.0.mlp.down_proj"
VALUES, OUT = "layers.2.self_attn.v_proj", "layers.2.self_attn.o_proj"
ELSEWHERE = "layers.1.self_attn.q_proj"


def harm(weights):
    """Two errors that are the same to what follows, two that undo each other, and one that knows of no other."""
    for site, factor in ((UP, 1.125), (DOWN, 1.125), (VALUES, 2.0), (OUT, 0.5)):
        weights[f"model.{site}.weight"] *= factor
    noisy(weights, f"model.{ELSEWHERE}.weight", size=0.5)


def test_pairs_are_far_from_adding_up_where_errors_are_aligned_or_undo_each_other(tiny, tmp_path):
    reference = tiny("llama", **HEADS)
    candidate = changed_copy(reference, tmp_path / "candidate", harm)
    theirs, reads = load_file(candidate / "model.safetensors"), reads_of(reference, candidate)
    request = AttributeRequest.model_validate(
        {
            "kind": "attribute",
            "reference": {"model": "tiny"},
            "candidate": {"model": "changed"},
            "text": {"source": "inline", "documents": [{"id": "one", "text": "unused"}]},
            "levels": ["module"],
            "top": 5,
            "twins": 1,
        }
    )
    context = Context(Settings(home=tmp_path), tmp_path / "job")
    with swapper(reference, candidate, tmp_path, TEXT, torch.float32) as found:
        search = Search(found, differing_of(reference, candidate), request.levels, request.budget, request.top, context)
        search.run()
        full = found.kl((), into="candidate")
        looking = Looking(found, search, reads, request, context, full)
        looking.run()
        assert batches_of(found) < len(found.batches)
        seen = found.positions(batches_of(found))
    assert looking.additivity.pairs_tokens == seen
    pairs = {frozenset((one.first, one.second)): one for one in looking.additivity.pairs}
    planted = (UP, DOWN, VALUES, OUT, ELSEWHERE)
    assert set(pairs) == {frozenset(pair) for pair in combinations(planted, 2)}

    def kl(*sites):
        replaced = {name: theirs[name] for name in (f"model.{site}.weight" for site in sites)}
        return float(whole_model_kl(reference, reference, replaced, first(TEXT, seen)).mean())

    alone = {site: kl(site) for site in planted}
    for pair, told in pairs.items():
        together = kl(*pair)
        assert told.together.mean == pytest.approx(together, rel=0.03, abs=1e-6), pair
        assert told.ratio.mean == pytest.approx(together / sum(alone[site] for site in pair), rel=0.03, abs=1e-6), pair
    # an error twice as large costs four times as much, that of two parts that add up twice as much
    aligned, undone = pairs[frozenset((UP, DOWN))], pairs[frozenset((VALUES, OUT))]
    assert 1.6 < aligned.ratio.mean < 2.5
    assert (aligned.far, aligned.near) == (True, False)
    # powers of two: the product of both is the reference's to the last bit
    assert (undone.together.mean, undone.ratio.mean) == (0, 0)
    assert (undone.far, undone.near) == (True, False)
    far = {pair for pair, told in pairs.items() if told.far}
    assert not any(ELSEWHERE in pair for pair in far)
    assert np.isfinite(full).all()


def site(name, layer, kind="module"):
    return Site(name, kind, layer, (Piece(name),))


@pytest.mark.parametrize(
    ("ci", "far", "near"),
    [
        ((1.2, 1.9), True, False),
        ((1.02, 1.08), False, True),
        ((0.9, 2.2), False, False),
        ((0.6, 0.8), True, False),
        ((0.92, 1.06), False, True),
        ((0.799, 1.044), False, False),
        ((0.95, 1.1), False, False),
    ],
)
def test_far_is_sure_and_large_and_near_is_the_whole_interval_within_the_tenth(ci, far, near):
    found = Mean(mean=sum(ci) / 2, ci=ci, clusters="documents")
    assert (is_far(found), is_near(found)) == (far, near)


def test_what_has_no_interval_is_neither_near_nor_far():
    for found in (None, Mean(mean=1.0, ci=None), Mean(mean=3.0, ci=None)):
        assert not is_near(found) and not is_far(found)


def test_pairs_are_of_parts_that_share_nothing_the_first_ones_first():
    sites = [site("layers.1", 1, "layer"), site("a", 1), site("b", 2), site("c", 3)]
    assert [(one.name, other.name) for one, other in pairs(sites, 3)] == [
        ("layers.1", "b"),
        ("layers.1", "c"),
        ("a", "b"),
    ]


def measured(*parts):
    """Parts as a search ranks them, of the nats at every position."""
    return [Measured(part, np.array(kl, dtype=np.float32), len(kl), 0) for part, kl in parts]


def test_a_layer_gives_way_to_the_module_that_does_it_and_stays_if_its_damage_is_spread():
    layer, module, small = site("layers.1", 1, "layer"), site("m", 1), site("s", 1)
    other = site("layers.2", 2, "layer")
    ranked = measured((layer, [1.0]), (module, [0.8]), (other, [0.5]), (small, [0.1]))
    assert [one.name for one in disjoint(ranked, 5)] == ["m", "layers.2", "s"]
    assert [one.name for one in disjoint(ranked, 1)] == ["m"]
    assert [one.name for one in disjoint(measured((layer, [1.0]), (module, [0.3])), 5)] == ["layers.1"]


def test_a_layer_is_compared_with_its_part_on_the_tokens_that_both_saw():
    layer, module = site("layers.1", 1, "layer"), site("m", 1)
    # the module, dropped early, came to no such nats as the layer on the tokens that it did not see
    dropped = measured((layer, [1.0, 1.0, 9.0, 9.0]), (module, [4.9, 5.1]))
    assert [one.name for one in disjoint(dropped, 5)] == ["layers.1"]
    # the layer, dropped early, cost on its tokens what the module cost there, and not what that cost later
    for kl, names in (([9.0, 9.0, 0.1, 0.1], ["m", "b"]), ([0.1, 0.1, 9.0, 9.0], ["b", "layers.1"])):
        ranked = measured((site("b", 2), [1.0] * 4), (layer, [9.0, 9.0]))
        ranked.insert(0 if names[0] == "m" else 2, measured((module, kl))[0])
        assert [one.name for one in disjoint(ranked, 5)] == names


def test_what_costs_nothing_does_not_hide_what_was_dropped_before():
    ranked = measured((site("a", 1), [1.0, 1.0]), (site("b", 2), [0.0, 0.0]), (site("c", 3), [0.5]))
    assert [one.name for one in disjoint(ranked, 5)] == ["a", "c"]
