"""What is measured of the first parts, against whole models with the same weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

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
from workers.diagnosis.attribute.examination import Examination, disjoint
from workers.diagnosis.attribute.search import Measured, Search
from workers.diagnosis.attribute.sites import Piece, Site

TEXT = subset(windows=180)
UP, DOWN = "layers.0.mlp.up_proj", "layers.0.mlp.down_proj"
VALUES, OUT = "layers.2.self_attn.v_proj", "layers.2.self_attn.o_proj"
ELSEWHERE = "layers.1.self_attn.q_proj"


def harm(weights):
    """Two errors that are the same to what follows, two that undo each other, and one that knows of no other."""
    for site, factor in ((UP, 1.125), (DOWN, 1.125), (VALUES, 2.0), (OUT, 0.5)):
        weights[f"model.{site}.weight"] *= factor
    noisy(weights, f"model.{ELSEWHERE}.weight", size=0.5)


def test_the_first_parts_together_cost_what_the_whole_model_with_them_does(tiny, tmp_path):
    reference = tiny("llama", **HEADS)
    candidate = changed_copy(reference, tmp_path / "candidate", harm)
    theirs, reads = load_file(candidate / "model.safetensors"), reads_of(reference, candidate)
    request = AttributeRequest.model_validate(
        {
            "kind": "attribute",
            "reference": {"model": "tiny"},
            "candidate": {"model": "changed"},
            "text": {"source": "inline", "documents": [{"id": "one", "text": "unused"}]},
            "levels": ["layer", "module"],
            "top": 5,
        }
    )
    context = Context(Settings(home=tmp_path), tmp_path / "job")
    with swapper(reference, candidate, tmp_path, TEXT, torch.float32) as found:
        search = Search(found, differing_of(reference, candidate), request.levels, request.budget, request.top, context)
        search.run()
        full = found.kl((), into="candidate")
        examination = Examination(found, search, reads, request, context, full)
        examination.run()
    text = first(TEXT, len(full))
    assert {look.control for look in examination.looks.values()} == {0.0}
    names = [name for name in theirs if any(name.startswith(f"model.{part}.") for part in examination.explained.sites)]
    together = whole_model_kl(reference, reference, {name: theirs[name] for name in names}, text).mean()
    assert examination.explained.nats.mean == pytest.approx(float(together), rel=0.03)
    everything = examination.additivity
    alone = [
        whole_model_kl(reference, reference, {n: theirs[n] for n in theirs if n.startswith(f"model.{layer}.")}, text)
        for layer in everything.over
    ]
    total = sum(float(kl.mean()) for kl in alone)
    assert everything.total.mean == pytest.approx(total, rel=0.03)
    assert everything.ratio.mean == pytest.approx(float(full.mean()) / total, rel=0.03)


def site(name, layer, kind="module"):
    return Site(name, kind, layer, (Piece(name),))


def measured(*parts):
    """Parts as a search ranks them, of the nats at every position."""
    return [Measured(part, np.array(kl, dtype=np.float32), len(kl)) for part, kl in parts]


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
